"""The comparison over whole sets: what it must catch, and that it is silent on the right artefact."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click.testing
import numpy as np
import numpy.typing as npt
import pytest

from fakes.session import FakeSession
from tumorseg_benchmarks.commands.parity import parity
from tumorseg_benchmarks.parity.fp16_reference import NAME as ROUNDED
from tumorseg_benchmarks.parity.parity import check_parity, compare
from tumorseg_benchmarks.parity.references import ReferenceSet, golden_reference, split_reference
from tumorseg_benchmarks.variants.pytorch import PyTorchSession
from tumorseg_benchmarks.variants.variants import VARIANTS
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import BackendError, BundleError, InputError, ParityError
from tumorseg_runtime.processing.preprocess import Preprocessor

if TYPE_CHECKING:
    import onnx

    from tumorseg_train.networks.run import Run

FloatArray = npt.NDArray[np.float32]


def weights(model: onnx.ModelProto, which: int) -> onnx.TensorProto:
    """Weights of the first (0) or last (-1) convolution."""
    node = [node for node in model.graph.node if node.op_type == "Conv"][which]
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == node.input[1]]
    return tensor


def change(which: int, rule: Callable[[FloatArray], FloatArray]) -> Callable[[onnx.ModelProto], None]:
    def edit(model: onnx.ModelProto) -> None:
        import onnx.numpy_helper

        tensor = weights(model, which)
        array = onnx.numpy_helper.to_array(tensor).copy()
        changed = np.asarray(rule(array), array.dtype)
        tensor.CopyFrom(onnx.numpy_helper.from_array(changed, tensor.name))

    return edit


# bug, as it happens in deployments: (file, convolution, rule on its weights (out, in, kh, kw))
MUTANTS: dict[str, tuple[str, int, Callable[[FloatArray], FloatArray]]] = {
    "channels in the order BGR": ("model.onnx", 0, lambda w: w[:, ::-1]),
    "one layer scaled by 1.01": ("model.onnx", -1, lambda w: w * 1.01),
    "height and width transposed": ("model.onnx", 0, lambda w: w.swapaxes(2, 3)),
    "weights of another training": (
        "model.onnx", 0, lambda w: w + np.random.default_rng(1).normal(0, 0.05, w.shape),
    ),
    "NaN in one weight": (
        "model.onnx", -1, lambda w: np.where(np.arange(w.size).reshape(w.shape) == 0, np.nan, w),
    ),
    "half precision: one layer overflows": ("model.fp16.onnx", 0, lambda w: w * 6e4),
    "half precision: one layer lost": ("model.fp16.onnx", -1, lambda w: w * 0),
}  # fmt: skip


def invoke(*arguments: str | Path) -> click.testing.Result:
    return click.testing.CliRunner().invoke(parity, [str(argument) for argument in arguments])


@pytest.mark.slow
@pytest.mark.usefixtures("few_conformance_files")
@pytest.mark.parametrize("bug", MUTANTS)
def test_command_fails_on_every_mutant(bug: str, mutate: Callable[..., Path], tmp_path: Path) -> None:
    file, which, rule = MUTANTS[bug]
    result = invoke(mutate(change(which, rule), file), "--out", tmp_path / "out")
    assert isinstance(result.exception, ParityError)
    assert result.exception.exit_code == 1
    rows = json.loads((tmp_path / "out/parity.json").read_text())["rows"]
    status = {
        (row["precision"], row["device"]): row["status"]
        for row in rows
        if row["device"] == "cpu" and row["format"] == "onnx"
    }
    wrong, right = ("fp16", "fp32") if "fp16" in file else ("fp32", "fp16")
    assert status == {(wrong, "cpu"): "refused", (right, "cpu"): "passed", ("int8", "cpu"): "unverified"}
    assert "Breaches:" in (tmp_path / "out/parity.md").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("few_conformance_files")  # all: test_ranking, of every backend
def test_command_passes_on_the_right_bundle_and_lists_what_is_unverified(
    tiny_bundle: Bundle, tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tumorseg_benchmarks.variants.candidates.why_no_driver", lambda: "no NVIDIA driver")
    result = invoke(
        tiny_bundle.root, "--run", tiny_run.root, "--out", tmp_path, "--device-folder", tmp_path / "device"
    )
    assert result.exit_code == 0, result.output
    values = json.loads((tmp_path / "parity.json").read_text())
    assert values["schema"] == 2
    assert values["bundle"]["sha256"] == tiny_bundle.digest()
    assert values["run"]["checkpoint_sha256"] == tiny_run.checkpoint_sha256
    assert values["machine"]["packages"]["numpy"] == np.__version__
    rows = values["rows"]
    passed = {(row["variant"], row["images"], row["batch"]) for row in rows if row["status"] == "passed"}
    assert passed == {
        ("module-fp32-pytorch-cpu", "golden", 1),
        *(
            (f"onnx-{precision}-onnxruntime-cpu", images, batch)
            for precision in ("fp32", "fp16")
            for images, batch in (
                ("conformance", 4),
                ("golden", 1),
                ("golden", 4),
                ("test", 1),
                ("edge cases", 1),
            )
        ),
        ("onnx-fp16-onnxruntime-cpu", ROUNDED, 1),
    }
    unverified = [row for row in rows if row["status"] == "unverified"]
    others = {"ncnn", "mnn", "mnn-exact", "openvino"}  # not in the default bundle
    assert {row["variant"] for row in unverified} == {
        s.name for s in VARIANTS if s.group == "gpu" or s.format in others or s.precision == "int8"
    }
    assert {row["reason"] for row in unverified if row["device"] != "cpu"} == {"no NVIDIA driver"}
    assert {row["reason"] for row in unverified if row["device"] == "cpu"} == {
        f"not exported: the bundle has no {s.precision} {s.format} artefact"
        for s in VARIANTS
        if s.format in others or (s.precision == "int8" and s.group != "gpu")
    }
    assert all(row["report"] is None for row in unverified)
    split = [row for row in rows if row["images"] == "test"]
    tested = [item.image for item in tiny_run.manifest().part("test")]
    assert all([image["image"] for image in row["report"]["images"]] == tested for row in split)
    assert all(image["tensor_differs"] == 0 for row in split for image in row["report"]["images"])
    page = (tmp_path / "parity.md").read_text()
    assert (
        "| TensorRT engine FP16, of this device | all | - | unverified | - | - | - | - | no NVIDIA driver |"
        in page
    )
    assert "all identical bit by bit" in page


@pytest.mark.usefixtures("few_conformance_files")
def test_json_output_is_the_file(tiny_bundle: Bundle, tmp_path: Path) -> None:
    result = invoke(tiny_bundle.root, "--out", tmp_path, "--device-folder", tmp_path / "device", "--json")
    assert json.loads(result.stdout) == json.loads((tmp_path / "parity.json").read_text())


@pytest.mark.slow
@pytest.mark.usefixtures("few_conformance_files")
def test_figures_that_are_not_finite_are_null_in_json(mutate: Callable[..., Path], tmp_path: Path) -> None:
    _, which, rule = MUTANTS["NaN in one weight"]
    invoke(mutate(change(which, rule)), "--out", tmp_path)
    rows = json.loads((tmp_path / "parity.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    (first, *_) = [row for row in rows["rows"] if row["status"] == "refused"]
    assert first["report"]["images"][0]["max_error"] is None
    assert "logits that are not finite" in first["report"]["images"][0]["breaches"][0]


@pytest.mark.slow
@pytest.mark.usefixtures("few_conformance_files")
def test_one_wrong_bit_of_the_runtimes_preprocessing_is_a_breach(
    tiny_bundle: Bundle, tiny_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The logits stay within every budget: only the comparison of the tensors can see it."""

    right = Preprocessor.__call__

    def one_bit_off(self: Preprocessor, image: npt.NDArray[np.uint8], name: str = "image") -> FloatArray:
        tensor = right(self, image, name)
        tensor.view(np.uint32)[0, 0, 0] ^= 1
        return tensor

    monkeypatch.setattr(Preprocessor, "__call__", one_bit_off)
    rows = check_parity(tiny_bundle, tiny_run, "test", 2)
    compared = [row for row in rows if row.report]
    assert {row.images for row in compared} == {"conformance", "golden", "test", "edge cases", ROUNDED}
    for row in compared:
        assert row.status == "refused"
        assert row.report is not None
        assert all(image.tensor_differs == 1 and len(image.breaches) == 1 for image in row.report.images)


def test_split_reference_is_what_training_would_see(tiny_run: Run) -> None:
    reference = split_reference(tiny_run, PyTorchSession(tiny_run.model(), "cpu"), "test", 3)
    assert len(reference.images) == len(reference.logits) == 3
    assert reference.tensor is not None
    runtime = Preprocessor(tiny_run.contract)
    for index, image in enumerate(reference.images):
        np.testing.assert_array_equal(runtime(image.pixels()), reference.tensor(index))
    assert [image.name for image in reference.images] == [
        tiny_run.manifest().part("test")[index].image for index in (0, 1, 3)
    ]


class FrozenBatch(FakeSession):
    """A graph that was exported at batch 1 and answers every image of a batch with the first one's logits."""

    def infer(self, batch: FloatArray) -> FloatArray:
        return np.repeat(super().infer(batch)[:1], len(batch), axis=0)


def fake_reference(bundle: Bundle) -> ReferenceSet:
    golden = golden_reference(bundle)
    preprocess = Preprocessor(bundle.contract)
    logits = [FakeSession().infer(preprocess(image.pixels())[None])[0] for image in golden.images]
    return dataclasses.replace(golden, logits=tuple(logits))


def test_compare_sees_a_batch_frozen_at_one(tiny_bundle: Bundle) -> None:
    reference, contract = fake_reference(tiny_bundle), tiny_bundle.contract
    assert compare(FrozenBatch(), "frozen", reference, contract, 1).passed
    report = compare(FrozenBatch(), "frozen", reference, contract, 2)
    assert [bool(image.breaches) for image in report.images] == [False, True, False, True]


def test_compare_goes_in_batches_and_checks_each_image_once(tiny_bundle: Bundle) -> None:
    session, seen = FakeSession(), list[int]()
    report = compare(
        session, "fake", fake_reference(tiny_bundle), tiny_bundle.contract, 3,
        lambda index, masks: seen.append(index),
    )  # fmt: skip
    assert session.batches == [3, 1]
    assert [image.image for image in report.images] == list(tiny_bundle.golden)
    assert report.passed
    assert seen == [0, 1, 2, 3]


def test_compare_breaches_on_too_few_logits(tiny_bundle: Bundle) -> None:
    class Short(FakeSession):
        def infer(self, batch: FloatArray) -> FloatArray:
            return super().infer(batch)[:1]

    report = compare(Short(), "short", fake_reference(tiny_bundle), tiny_bundle.contract, 4)
    assert len(report.images) == 4
    assert all("returned float32 (1, 1, 64, 64)" in image.breaches[0] for image in report.images)


def test_compare_refuses_half_precision_logits(tiny_bundle: Bundle) -> None:
    class Half(FakeSession):
        def infer(self, batch: FloatArray) -> FloatArray:
            return super().infer(batch).astype(np.float16)  # type: ignore[return-value]

    report = compare(Half(), "half", fake_reference(tiny_bundle), tiny_bundle.contract)
    assert all("returned float16" in image.breaches[0] for image in report.images)


@pytest.mark.slow
def test_an_artefact_that_does_not_open_is_a_breach(mutate: Callable[..., Path], tmp_path: Path) -> None:
    def cut(model: onnx.ModelProto) -> None:
        del model.graph.node[len(model.graph.node) // 2]

    result = invoke(mutate(cut), "--out", tmp_path / "out")
    assert isinstance(result.exception, ParityError)
    assert "cannot open model.onnx" in str(result.exception)


def test_a_run_that_is_not_the_bundles_is_refused(tiny_bundle: Bundle, tiny_run: Run) -> None:
    other = dataclasses.replace(tiny_run, checkpoint_sha256="0" * 64)
    with pytest.raises(BundleError, match="was exported from checkpoint"):
        check_parity(tiny_bundle, other, "test", 1)


def test_where_nothing_can_be_compared_the_check_does_not_pass(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tumorseg_benchmarks.variants.candidates.why_no_driver", lambda: "no NVIDIA driver")
    monkeypatch.setattr(
        "tumorseg_runtime.backends.onnxruntime.why_unavailable", lambda device: "onnxruntime is not installed"
    )
    with pytest.raises(BackendError, match=r"no artefact could be compared .* install the extra cpu"):
        check_parity(tiny_bundle, None, "test", 0)


def test_an_image_that_changed_since_the_split_is_refused(tiny_run: Run, tmp_path: Path) -> None:
    import shutil

    from tumorseg_benchmarks.variants.inputs import split_inputs

    data = tmp_path / "data"
    shutil.copytree(tiny_run.data["root"], data)
    moved = dataclasses.replace(tiny_run, data={**tiny_run.data, "root": str(data)})
    image = data / moved.manifest().part("test")[0].image
    assert split_inputs(moved, "test", 0)[0].data == image.read_bytes()
    image.write_bytes(image.read_bytes() + b"\0")
    with pytest.raises(InputError, match="has changed since it was split"):
        split_inputs(moved, "test", 0)
    image.unlink()
    with pytest.raises(InputError, match="is gone, expected the image"):
        split_inputs(moved, "test", 0)
