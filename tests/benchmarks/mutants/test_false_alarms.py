"""False alarms are counted by files, and what a backend does around a network is asked once."""

from __future__ import annotations

from typing import Any

import pytest

from tumorseg_benchmarks.mutants import by_command
from tumorseg_benchmarks.mutants.by_command import conformance_once
from tumorseg_benchmarks.mutants.false_alarms import Artefact, summary
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.parity import verify


def test_an_artefact_is_a_file_however_many_backends_and_commands_refuse_it() -> None:
    alarms = ("verify: too far", "parity --run: too far")
    artefacts = [
        Artefact("unet-last-64x96", "onnxruntime", "fp32", "model.onnx", ()),
        Artefact("unet-last-64x96", "mnn", "fp32", "model.mnn", alarms),
        Artefact("unet-last-64x96", "mnn-exact", "fp32", "model.mnn", alarms[:1]),
        Artefact("unet-earlier-64x96", "onnxruntime", "fp32", "model.onnx", ()),
    ]
    found = summary(artefacts, {"unet-last-64x96": {"onnx-int8": "slow"}, "unet-earlier-64x96": {}})
    assert (found["networks"], found["artefacts"], found["under_backends"], found["not_made"]) == (2, 3, 4, 1)
    assert (found["false_alarms"]["images"], found["false_alarms"]["failed"]) == (3, 1)


def test_the_conformance_files_go_through_a_backend_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[tuple[Any, ...]]()

    def check(make: Any, *of: Any, full: bool) -> str:
        asked.append((*of[:3], full))
        return f"answer {len(asked)}"

    monkeypatch.setattr(by_command, "check_conformance", check)
    real = verify.check_conformance
    other = Contract(height=64, width=96, mean=(0.3,), std=(0.2,))
    with conformance_once({}):
        once: Any = verify.check_conformance
        answers = [
            once(None, "mnn", "cpu", "fp32", contract, full=full, tell=print)
            for contract in (Contract(), Contract(height=64), other)
            for full in (True, False)
        ]
    assert answers == ["answer 1", "answer 2", "answer 1", "answer 2", "answer 3", "answer 4"]
    assert verify.check_conformance is real
