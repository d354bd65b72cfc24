from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fakes.session import FakeSession
from tumorseg_benchmarks.variants import candidates
from tumorseg_benchmarks.variants.candidates import open_candidate, why_not
from tumorseg_benchmarks.variants.variants import VARIANTS, Variant, variant_of
from tumorseg_runtime.backends import BACKENDS, MASK_BACKENDS
from tumorseg_runtime.bundle.bundle import Artefact, Bundle
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.session import InputForm
from tumorseg_runtime.device.cache import beside
from tumorseg_runtime.device.engines import EngineKey, Profile, write_engine

if TYPE_CHECKING:
    from tumorseg_train.networks.run import Run

GPU_SUBJECTS = [variant for variant in VARIANTS if variant.group == "gpu"]


def named(name: str) -> Variant:
    (variant,) = [variant for variant in VARIANTS if variant.name == name]
    return variant


def test_names_tell_all_variants_apart() -> None:
    assert len({variant.name for variant in VARIANTS}) == len(VARIANTS)
    assert len({variant.label for variant in VARIANTS}) == len(VARIANTS)
    assert {variant.group for variant in VARIANTS} == {"cpu", "gpu"}


@pytest.mark.parametrize("variant", GPU_SUBJECTS, ids=lambda variant: variant.name)
def test_without_a_driver_every_gpu_variant_says_so_and_touches_nothing(
    variant: Variant, tiny_bundle: Bundle, tiny_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "why_no_driver", lambda *ordinal: "no NVIDIA driver")
    monkeypatch.setattr("tumorseg_runtime.backends.importlib", None)  # no backend may even be imported
    candidate = open_candidate(variant, tiny_bundle, tiny_run, 1)
    assert (candidate.session, candidate.reason) == (None, "no NVIDIA driver")


def test_with_a_driver_the_next_reason_is_found(
    tiny_bundle: Bundle, tiny_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "why_no_driver", lambda *ordinal: None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(candidates, "why_unavailable", lambda backend, device: f"no {device} provider")
    assert "sees no CUDA device" in str(why_not(named("module-fp32-pytorch-cuda"), tiny_bundle, tiny_run))
    reason = why_not(named("onnx-fp16-onnxruntime-tensorrt"), tiny_bundle, tiny_run)
    assert reason == "no tensorrt provider"
    reason = why_not(named("tensorrt-rtx-fp16-tensorrt-cuda"), tiny_bundle, tiny_run)
    assert reason == "not exported: the bundle has no fp16 tensorrt-rtx artefact"
    assert why_not(named("engine-fp16-tensorrt-cuda"), tiny_bundle, tiny_run) == "no cuda provider"


def test_pytorch_needs_a_run_and_artefacts_must_be_in_the_bundle(tiny_bundle: Bundle, tiny_run: Run) -> None:
    assert why_not(named("module-fp32-pytorch-cpu"), tiny_bundle, None) == "no run was given (--run)"
    assert why_not(named("module-fp32-pytorch-cpu"), tiny_bundle, tiny_run) is None
    fp32_only = dataclasses.replace(
        tiny_bundle, artefacts=tuple(a for a in tiny_bundle.artefacts if a.precision == "fp32")
    )
    variant = named("onnx-fp16-onnxruntime-cpu")
    assert why_not(variant, tiny_bundle, None) is None
    assert why_not(variant, fp32_only, None) == "not exported: the bundle has no fp16 onnx artefact"


def test_an_artefact_that_does_not_open_keeps_the_reason(tiny_bundle: Bundle, tmp_path: object) -> None:
    broken = dataclasses.replace(tiny_bundle, root=tiny_bundle.root / "nowhere")
    candidate = open_candidate(named("onnx-fp32-onnxruntime-cpu"), broken, None, 1)
    assert candidate.session is None
    assert "model.onnx is no longer as it was sealed" in candidate.reason


def test_every_backend_of_the_runtime_that_gives_logits_is_a_variant() -> None:
    assert {variant.engine for variant in VARIANTS} == {"pytorch", *BACKENDS} - set(MASK_BACKENDS)


def test_a_variant_of_the_bundle_follows_from_the_record_of_its_backend() -> None:
    made = [v for v in VARIANTS if v.engine in BACKENDS and not BACKENDS[v.engine].device_folder]
    assert [variant_of(v.engine, v.device, v.precision) for v in made] == made
    assert [v.label for v in made if v.device == "cpu"] == [
        "ONNX FP32, ONNX Runtime CPU",
        "ONNX FP16, ONNX Runtime CPU",
        "ONNX INT8, ONNX Runtime CPU",
        "ncnn FP32, CPU",
        "MNN FP32, CPU",
        "MNN FP32 exact, CPU",
        "OpenVINO FP32, CPU",
        "OpenVINO BF16, CPU",
        "OpenVINO INT8, CPU",
    ]
    assert len({v.name for v in VARIANTS}) == len({v.label for v in VARIANTS}) == len(VARIANTS)
    assert named("mnn-exact-fp32-mnn-exact-cpu").formats == ("mnn-exact", "mnn")
    assert named("engine-fp16-tensorrt-cuda").formats == ("engine",)


@pytest.mark.parametrize("format", ["ncnn", "mnn", "mnn-exact", "openvino"])
def test_what_was_not_exported_says_so_and_its_backend_is_not_imported(
    format: str, tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tumorseg_runtime.backends.importlib", None)
    candidate = open_candidate(named(f"{format}-fp32-{format}-cpu"), tiny_bundle, None, 1)
    assert candidate.reason == f"not exported: the bundle has no fp32 {format} artefact"
    assert not candidate.failed


def test_one_file_of_mnn_serves_both_of_its_backends(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "why_unavailable", lambda backend, device: None)
    usual, exact = named("mnn-fp32-mnn-cpu"), named("mnn-exact-fp32-mnn-exact-cpu")
    for format, reasons in (("mnn", (False, False)), ("mnn-exact", (True, False))):
        bundle = dataclasses.replace(tiny_bundle, artefacts=(Artefact("f", format, "fp32", None, {}, ()),))
        assert tuple(why_not(variant, bundle, None) is not None for variant in (usual, exact)) == reasons


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the runtime is asked to open on a machine with a GPU; it answers with fakes."""
    asked: list[dict[str, Any]] = []

    def open_session(bundle: Bundle, **options: Any) -> FakeSession:
        asked.append(options)
        return FakeSession()

    monkeypatch.setattr(candidates, "why_no_driver", lambda *ordinal: None)
    monkeypatch.setattr("tumorseg_runtime.backends.tensorrt.why_unavailable", lambda device: None)
    monkeypatch.setattr(candidates, "open_session", open_session)
    return asked


def test_engines_of_the_bundle_and_of_the_device_are_told_apart(
    tiny_bundle: Bundle, tmp_path: Path, opened: list[dict[str, Any]]
) -> None:
    rtx = Artefact("model.rtx.engine", "tensorrt-rtx", "fp16", 8, {}, ())
    bundle = dataclasses.replace(tiny_bundle, artefacts=(*tiny_bundle.artefacts, rtx))
    built = named("engine-fp16-tensorrt-cuda")
    assert open_candidate(built, bundle, None, 2, tmp_path).reason == (
        "no fp16 engine was built here (tumorseg build)"
    )
    assert not opened
    key = EngineKey(
        "0" * 64, bundle.digest(), "fp16", "tensorrt", "10.3.0", (87,), "GPU", Profile(1, 1, 1), None
    )
    write_engine(tmp_path / key.name(), b"engine", key)
    assert open_candidate(built, bundle, None, 2, tmp_path).session is not None
    own = open_candidate(named("tensorrt-rtx-fp16-tensorrt-cuda"), bundle, None, 2, tmp_path)
    assert own.session is not None
    assert [options["device_folder"] for options in opened] == [tmp_path, None]
    assert [options["threads"] for options in opened] == [None, None], "a GPU has no CPU threads to bound"
    assert not beside(bundle).exists()


def test_the_device_folder_that_is_there_is_found(
    tiny_bundle: Bundle, tmp_path: Path, opened: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "find", lambda bundle: tmp_path)
    key = EngineKey(
        "0" * 64, tiny_bundle.digest(), "fp32", "tensorrt", "10.3.0", (87,), "GPU", Profile(1, 1, 1), None
    )
    write_engine(tmp_path / key.name(), b"engine", key)
    open_candidate(named("engine-fp32-tensorrt-cuda"), tiny_bundle, None, 2)
    assert [options["device_folder"] for options in opened] == [tmp_path]


def test_a_session_that_takes_another_form_is_no_candidate(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = FakeSession()
    session.input = InputForm(dtype=np.dtype(np.float16).name)
    monkeypatch.setattr(candidates, "open_session", lambda *_, **__: session)
    candidate = open_candidate(named("onnx-fp32-onnxruntime-cpu"), tiny_bundle, None, 1)
    assert candidate.session is None
    assert candidate.reason == "takes float16 NCHW, not float32 NCHW"


def test_an_input_that_a_backend_refuses_is_a_reason(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise InputError("threads is 2, expected none")

    monkeypatch.setattr(candidates, "open_session", refuse)
    candidate = open_candidate(named("onnx-fp32-onnxruntime-cpu"), tiny_bundle, None, 1)
    assert (candidate.session, candidate.failed) == (None, True)
    assert candidate.reason == "threads is 2, expected none"
