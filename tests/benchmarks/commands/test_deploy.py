"""`tumorseg deploy`: what passes is kept and timed, what fails is listed, one winner."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click.testing
import pytest

from tumorseg_benchmarks.commands import deploy as module
from tumorseg_benchmarks.commands.deploy import deploy, judged, outcome_of, possible, table
from tumorseg_benchmarks.latency.rows import BenchRow
from tumorseg_benchmarks.variants.places import PLACES
from tumorseg_benchmarks.variants.variants import VARIANTS
from tumorseg_export.bundle import export as export_module
from tumorseg_export.targets import onnx_deploy, openvino
from tumorseg_export.targets.int8_acceptance import SlowError
from tumorseg_export.targets.registry import TARGETS
from tumorseg_export.targets.validate_parity import BreachError
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import (
    BackendError,
    CheckFailedError,
    InputError,
    ParityError,
    TumorsegError,
)
from tumorseg_runtime.device.driver import why_no_driver
from tumorseg_runtime.inference.segmenter import Segmenter
from tumorseg_runtime.parity.budget import BUDGETS
from tumorseg_runtime.parity.compare import ImageParity, ParityReport

if TYPE_CHECKING:
    from tumorseg_train.networks.run import Run

no_gpu = pytest.mark.skipif(why_no_driver() is None, reason="says what a machine without a GPU is told")
SCHEMA = Path(__file__).parents[3] / "docs/schemas/deploy.schema.json"


def report(error: float, flipped: int) -> ParityReport:
    """Of one image that breaks the budget."""
    decisions = None
    if flipped:
        from tumorseg_runtime.parity.mask_diff import Decisions

        decisions = Decisions(4, 4, 16, 1.0, 0, flipped, 0, None, 0.5, (1, 1), (4, 4), 0.0, 4, 1.0, 0, ())
    image = ImageParity("a", None, error, error, error, 16, flipped, 0.5, ("a breach",), decisions=decisions)
    return ParityReport("f", "mnn", "cpu", "fp32", {}, BUDGETS["fp32"], 1.0, (image,))


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (BreachError("a", report(0.1, 0)), "refused", "only logits differ"),
        (BreachError("a", report(0.1, 3)), "refused", "masks differ"),
        (BreachError("a", report(float("inf"), 0)), "refused", "logits not comparable"),
        (SlowError("takes 1.2"), "refused", "not faster here"),
        (ParityError("no"), "refused", "differs from PyTorch"),
        (CheckFailedError("no"), "refused", "cannot be made"),
        (InputError("gray"), "refused", "does not fit"),
        (BackendError("no ncnn"), "unverified", "cannot run here"),
    ],
)
def test_each_failure_has_three_words(error: TumorsegError, status: str, reason: str) -> None:
    outcome = outcome_of("mnn", error)
    assert (outcome.status, outcome.reason, outcome.detail) == (status, reason, str(error))
    assert len(outcome.reason.split()) <= 3


@pytest.mark.slow
def test_what_fails_is_left_out_and_the_rest_is_timed(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One target is refused by its proof, one leaves a file and cannot be made, one passes."""
    prove = export_module.validate_parity

    def proof(draft: Bundle, artefact: object, *rest: object) -> object:
        if artefact.file == onnx_deploy.FILES["onnx-deploy"]:  # type: ignore[attr-defined]
            raise BreachError("decides otherwise", report(0.1, 3))
        return prove(draft, artefact, *rest)  # type: ignore[arg-type]

    def make(context: object, folder: Path, **options: object) -> object:
        (folder / "half.xml").write_text("half")
        raise CheckFailedError("openvino cannot convert")

    monkeypatch.setattr(export_module, "validate_parity", proof)
    monkeypatch.setattr(openvino, "make", make)
    names = ("onnx", "onnx-deploy", "onnx-deploy-gray", "openvino")
    monkeypatch.setitem(PLACES, "cpu", dataclasses.replace(PLACES["cpu"], targets=names))
    out = tmp_path / "bundle"
    given = [str(tiny_run.root), "--out", str(out), "--for", "cpu", "--threads", "1", "--rounds", "8"]
    done = click.testing.CliRunner().invoke(deploy, [*given, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    bundle = Bundle.open(out)  # whole: nothing of what was refused lies in it
    assert {one.file for one in bundle.artefacts} == {"model.onnx", onnx_deploy.FILES["onnx-deploy-gray"]}
    assert "onnx-deploy" not in bundle.model
    assert "onnx-deploy-gray" in bundle.model
    found = {one["name"]: (one["status"], one["reason"]) for one in result["outcomes"]}
    assert found["onnx-deploy"] == ("refused", "masks differ")
    assert found["openvino"] == ("refused", "cannot be made")
    assert found["ONNX FP32, ONNX Runtime CPU"] == ("winner", "fastest that passes")
    assert found["model.deploy-gray.onnx"] == ("passed", "not timed: masks")
    assert result["sha256"] == bundle.digest()
    assert done.stderr.splitlines()[-1].startswith(f"{out}: ONNX FP32, ONNX Runtime CPU is the fastest of 1")
    text = table(result)
    assert text.splitlines()[-3:] == result["python"]
    names_here: dict[str, Segmenter] = {}
    exec("\n".join(result["python"][:2]), names_here)  # type: ignore[arg-type]
    with names_here["segmenter"] as segmenter:
        assert segmenter.info.backend == "onnxruntime"
    check_schema(result)


def check_schema(result: dict[str, object]) -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert set(schema["required"]) == set(result) == set(schema["properties"])
    fields = schema["properties"]["outcomes"]["items"]
    for one in result["outcomes"]:  # type: ignore[attr-defined]
        assert set(one) == set(fields["properties"])
        assert one["status"] in fields["properties"]["status"]["enum"]
        assert len(one["reason"].split()) <= 3


@no_gpu
@pytest.mark.slow
def test_nothing_is_chosen_for_a_machine_that_is_elsewhere(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PLACES, "jetson", dataclasses.replace(PLACES["jetson"], targets=("onnx",)))
    out = tmp_path / "bundle"
    given = [str(tiny_run.root), "--out", str(out), "--for", "jetson"]
    done = click.testing.CliRunner().invoke(deploy, given)
    assert isinstance(done.exception, CheckFailedError)
    assert "nothing of it could be chosen for 'jetson' (this is no Jetson)" in str(done.exception)
    assert {one.format for one in Bundle.open(out).artefacts} == {"onnx"}
    assert "unverified, needs that machine: " in done.stdout
    assert "TensorRT engine FP16, of this device" in done.stdout
    assert "Segmenter" not in done.stdout


def test_targets_of_no_use_here_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "why_unavailable", lambda *pair: "absent" if pair[0] == "ncnn" else None)
    monkeypatch.setattr(module, "require_validators", lambda name, target: None)
    noted: dict[str, str] = {}
    names = possible(PLACES["here"], True, lambda name, error: noted.setdefault(name, str(error)))
    assert names == [name for name in TARGETS if name != "ncnn"]
    assert noted == {"ncnn": "absent: no backend of target ncnn runs here"}


def test_an_engine_is_built_where_the_device_can(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tumorseg_export.engine import build

    asked: list[str] = []

    def fail(bundle: Bundle, folder: Path, options: build.DeviceOptions, log: object) -> None:
        asked.append(options.precision)
        raise BackendError("out of memory")

    monkeypatch.setattr(module, "why_no_driver", lambda: None)
    monkeypatch.setattr(module, "why_unavailable", lambda *pair: None)
    monkeypatch.setattr(build, "build_for_device", fail)
    noted: list[str] = []
    module.build_engines(tiny_bundle, PLACES["jetson"], print, lambda name, error: noted.append(name))
    assert asked == ["fp16", "fp32"]
    assert noted == ["TensorRT engine fp16", "TensorRT engine fp32"]
    module.build_engines(tiny_bundle, PLACES["cpu"], print, lambda name, error: noted.append(name))
    assert len(asked) == 2


def test_what_breaks_parity_or_does_not_run_is_no_winner(tiny_bundle: Bundle) -> None:
    first, second = VARIANTS[1], VARIANTS[2]
    rows = [
        BenchRow(first, first.label, "reference", 1, "refused: parity", "a breach", parity=report(0.1, 3)),
        BenchRow(second, second.label, "variant", 1, "not measured", "did not open"),
    ]
    outcomes, winner = judged(rows, tiny_bundle)
    assert winner is None
    assert [(one.status, one.reason) for one in outcomes] == [
        ("refused", "masks differ"), ("unverified", "did not run"),
    ]  # fmt: skip
