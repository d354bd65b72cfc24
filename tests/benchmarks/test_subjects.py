from __future__ import annotations

import dataclasses
import types
from typing import TYPE_CHECKING

import pytest

from tumorseg_benchmarks import subjects
from tumorseg_benchmarks.subjects import SUBJECTS, Subject, open_candidate, why_not
from tumorseg_runtime.bundle import Bundle

if TYPE_CHECKING:
    from tumorseg_train.run import Run

GPU_SUBJECTS = [subject for subject in SUBJECTS if subject.group == "gpu"]


def named(name: str) -> Subject:
    (subject,) = [subject for subject in SUBJECTS if subject.name == name]
    return subject


def test_names_tell_all_subjects_apart() -> None:
    assert len({subject.name for subject in SUBJECTS}) == len(SUBJECTS)
    assert len({subject.label for subject in SUBJECTS}) == len(SUBJECTS)
    assert {subject.group for subject in SUBJECTS} == {"cpu", "gpu"}


@pytest.mark.parametrize("subject", GPU_SUBJECTS, ids=lambda subject: subject.name)
def test_without_a_driver_every_gpu_subject_says_so_and_touches_nothing(
    subject: Subject, tiny_bundle: Bundle, tiny_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subjects, "why_no_driver", lambda: "no NVIDIA driver")
    monkeypatch.setattr(subjects, "importlib", None)  # a backend's module must not even be imported
    candidate = open_candidate(subject, tiny_bundle, tiny_run, 1)
    assert (candidate.session, candidate.reason) == (None, "no NVIDIA driver")


def test_with_a_driver_the_next_reason_is_found(
    tiny_bundle: Bundle, tiny_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subjects, "why_no_driver", lambda: None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(subjects, "BACKENDS", {"onnxruntime": "some.module"})
    backend = types.SimpleNamespace(why_unavailable=lambda device: f"no {device} provider")
    monkeypatch.setattr(subjects, "importlib", types.SimpleNamespace(import_module=lambda name: backend))
    assert "sees no CUDA device" in str(why_not(named("module-fp32-pytorch-cuda"), tiny_bundle, tiny_run))
    reason = why_not(named("onnx-fp16-onnxruntime-tensorrt"), tiny_bundle, tiny_run)
    assert reason == "no tensorrt provider"
    reason = why_not(named("engine-fp16-tensorrt-cuda"), tiny_bundle, tiny_run)
    assert reason == "this version of tumorseg has no tensorrt backend"


def test_pytorch_needs_a_run_and_artefacts_must_be_in_the_bundle(tiny_bundle: Bundle, tiny_run: Run) -> None:
    assert why_not(named("module-fp32-pytorch-cpu"), tiny_bundle, None) == "no run was given (--run)"
    assert why_not(named("module-fp32-pytorch-cpu"), tiny_bundle, tiny_run) is None
    fp32_only = dataclasses.replace(
        tiny_bundle, artefacts=tuple(a for a in tiny_bundle.artefacts if a.precision == "fp32")
    )
    subject = named("onnx-fp16-onnxruntime-cpu")
    assert why_not(subject, tiny_bundle, None) is None
    assert why_not(subject, fp32_only, None) == "the bundle has no fp16 onnx artefact"


def test_an_artefact_that_does_not_open_keeps_the_reason(tiny_bundle: Bundle, tmp_path: object) -> None:
    broken = dataclasses.replace(tiny_bundle, root=tiny_bundle.root / "nowhere")
    candidate = open_candidate(named("onnx-fp32-onnxruntime-cpu"), broken, None, 1)
    assert candidate.session is None
    assert "cannot open model.onnx" in candidate.reason
