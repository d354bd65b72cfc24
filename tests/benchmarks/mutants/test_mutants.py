"""The gate is itself tested: no bug lives, nothing right is refused, and the criteria of others are applied
as they are described."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from session_cache import kept
from tumorseg_benchmarks.mutants import testbed
from tumorseg_benchmarks.mutants.__main__ import problems_of
from tumorseg_benchmarks.mutants.bugs import files
from tumorseg_benchmarks.mutants.by_command import COMMANDS, Detection, detect
from tumorseg_benchmarks.mutants.catalogue import EQUIVALENT, MUTANTS
from tumorseg_benchmarks.mutants.mutant import Device, Mutant
from tumorseg_benchmarks.mutants.negative_controls import FEWEST, NegativeControl, all_controls, all_forms
from tumorseg_benchmarks.mutants.table import BLIND, KILLED, NAMES, label, verdict
from tumorseg_benchmarks.mutants.testbed import (
    DEEPLAB,
    FOR_BUGS,
    UNET,
    Size,
    TestBed,
    make_test_bed,
    read_test_bed,
    write_test_bed,
)
from tumorseg_benchmarks.mutants.third_party_criteria import (
    CRITERIA,
    allclose,
    elementwise,
    mean_absolute,
    not_finite,
)
from tumorseg_benchmarks.mutants.trial import OURS, MutantResult, try_controls, try_mutants
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import ParityError
from tumorseg_runtime.device.engines import write_engine
from tumorseg_runtime.parity.conformance import Conformance
from tumorseg_train.networks.run import Run

DOCS = Path(__file__).parents[3] / "docs" / "mutants.md"
MUST_BE_THERE = (
    "BGR for RGB", "no division by 255", "wrong mean: 0.5", "wrong std: 0.5", "Pillow's resize",
    "area resize", "antialiased resize", "half-pixel shift in the resize",
    "align_corners flipped in the head", "nearest for bilinear", "height and width transposed",
    "letterbox for stretch", "BatchNorm in training mode", "batch frozen at 1", "batch mates mixed",
    "stale weights of another epoch", "two layers' weights exchanged", "one layer times 1.01",
    "FP16 overflow in one layer", "FP16 rounding of a sensitive layer", "double sigmoid",
    "threshold of probabilities on logits", "mask at the network's size", "off-by-one crop of the mask",
    "16 bits cut to the high byte", "MONOCHROME1 not inverted", "EXIF orientation ignored",
    "alpha multiplied in", "padding value wrong in the head", "skip connection dropped", "ReLU6 for ReLU",
    "wrong upsampling in one decoder block", "wrong class channel", "NaN swallowed",
)  # fmt: skip
CONFORMANCE: dict[tuple[Any, ...], Conformance] = {}  # of right devices: it depends on the code alone
REFUSED_BY_ALL = (
    "double sigmoid", "mask upside down", "results of a batch out of order", "lesion of five pixels made up",
    "deploy form: lesion of five pixels made up",
)  # fmt: skip


@pytest.fixture(scope="module")
def test_bed(tmp_path_factory: pytest.TempPathFactory) -> TestBed:
    """The networks of the bugs, trained for a moment, exported to ONNX alone."""
    pytest.importorskip("pydicom", reason="pydicom is not installed (extra dicom)")
    # of fewer passes the U-Net is so rough that INT8 moves its masks
    size = Size(phantoms=10, passes=12, golden=4, targets=FOR_BUGS, networks=(UNET, DEEPLAB))

    def make(folder: Path) -> None:
        write_test_bed(make_test_bed(folder, size))

    return read_test_bed(kept("test-bed", tmp_path_factory.mktemp("test_bed") / "bed", make))


def test_every_bug_has_a_name_of_its_own_and_none_that_must_be_there_is_missing() -> None:
    names = [mutant.name for mutant in (*MUTANTS, *EQUIVALENT)]
    assert len(set(names)) == len(names)
    assert set(MUST_BE_THERE) <= {mutant.name for mutant in MUTANTS}
    assert len(MUTANTS) >= 130
    assert sum(mutant.late for mutant in MUTANTS) >= 10
    assert all(mutant.proof for mutant in EQUIVALENT)
    assert not any(mutant.proof for mutant in MUTANTS)


def test_the_docs_list_every_mutant() -> None:
    rows = [line.split(" | ")[0].removeprefix("| ") for line in DOCS.read_text().splitlines() if "| " in line]
    missing = [label(mutant) for mutant in (*MUTANTS, *EQUIVALENT) if label(mutant) not in rows]
    assert not missing
    assert re.search(r"^python -m tumorseg_benchmarks\.mutants", DOCS.read_text(), re.MULTILINE)


@pytest.mark.fault
@pytest.mark.slow
def test_bugs_of_every_kind_are_refused_and_what_changes_nothing_is_not(test_bed: TestBed) -> None:
    """The whole list is what the command is for; here is the first of every kind."""
    chosen = {mutant.name: mutant for mutant in {one.kind: one for one in reversed(MUTANTS)}.values()}
    harmless = {one.kind: one for one in EQUIVALENT}.values()
    more = ("BGR for RGB", "one layer times 1.01", "double sigmoid", "mask upside down")
    chosen |= {mutant.name: mutant for mutant in MUTANTS if mutant.name in (*more, *REFUSED_BY_ALL)}
    broken = list(try_mutants(test_bed, chosen.values()))
    assert problems_of(broken, list(try_mutants(test_bed, harmless)), []) == []
    assert not list(test_bed.folder.glob("mutant-*"))
    results = {result.mutant.name: result for result in broken}
    # A bug outside of the file is one that nobody sees who looks at nothing but the file.
    assert verdict(results["BGR for RGB"], "Polygraphy") == BLIND
    assert verdict(results["one layer times 1.01"], "Polygraphy") == KILLED
    # What passed every command before the one loop: now a device's self-test refuses it as well.
    for name in REFUSED_BY_ALL:
        assert set(COMMANDS[1:]) <= set(results[name].levels), name


@pytest.mark.slow
def test_nothing_is_left_broken_and_correct_artefacts_pass(test_bed: TestBed) -> None:
    for name, precision in ((UNET, "fp32"), (DEEPLAB, "fp16")):
        network = test_bed.networks[name]
        assert detect(Device(network.bundle, precision), network, CONFORMANCE) == []
    forms = [
        NegativeControl(name, "onnxruntime", precision, 1, batch, level)
        for name, precision, batch, level in ((UNET, "fp32", 3, "off"), (DEEPLAB, "fp16", 1, "all"))
    ]
    assert [result.alarms[OURS] for result in try_controls(test_bed, forms)] == ["", ""]


@pytest.mark.slow
def test_an_engine_of_this_very_bundle_is_no_bug(test_bed: TestBed, tmp_path: Path) -> None:
    network = test_bed.networks[UNET]
    key = files.engine_key(network.bundle, network.bundle.digest())
    write_engine(tmp_path / key.name(), b"engine", key)
    device = Device(network.bundle, folder=tmp_path)
    assert detect(device, network, CONFORMANCE) == []


def test_there_are_enough_correct_artefacts_and_each_is_another_one() -> None:
    forms = list(all_forms())
    assert len(set(forms)) == len(forms) > FEWEST
    assert {form.backend for form in forms} == {"onnxruntime", "ncnn", "mnn", "mnn-exact", "openvino"}
    assert {form.level for form in forms} == {"off", "basic", "extended", "all", None}


@pytest.mark.slow
def test_a_form_that_the_exporter_refused_is_no_correct_artefact(
    test_bed: TestBed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The remedy of the message is taken, and every other refusal stops the trial."""
    assert {one.backend for one in all_controls(test_bed)} == {form.backend for form in all_forms()}
    run, size = test_bed.networks[UNET].run, Size(golden=4, targets=("onnx", "mnn"))
    exported = testbed.export_run

    def refuse(run: Run, out: Path, *, targets: Sequence[str], golden: int) -> Bundle:
        if tuple(targets) != size.targets:
            return exported(run, out, targets=targets, golden=golden)
        raise ParityError(reason)

    monkeypatch.setattr(testbed, "export_run", refuse)
    reason = "under mnn on cpu at batch 1 with 1 thread an artefact decides other than PyTorch"
    bundle, refused = testbed.export(run, tmp_path / "bundle", size)
    assert refused == {"mnn": reason}
    assert [artefact.format for artefact in bundle.artefacts] == ["onnx", "mnn-exact"]
    network = dataclasses.replace(test_bed.networks[UNET], bundle=bundle, refused=refused)
    left = all_controls(TestBed(tmp_path, {**test_bed.networks, UNET: network}))
    assert {one.network for one in left if one.backend == "mnn"} == {DEEPLAB}
    reason = "under ncnn on cpu at batch 1 an artefact decides other than PyTorch"
    with pytest.raises(ParityError, match="under ncnn"):
        testbed.export(run, tmp_path / "again", size)


def test_a_survivor_and_a_false_alarm_are_problems() -> None:
    right = Mutant("right", "graph", MUTANTS[0].apply, proof="it is")
    lives = MutantResult(MUTANTS[0], (), {}, seen=True)
    refused = MutantResult(right, (Detection("verify", "too far"),), {}, seen=True)
    assert problems_of([lives], [refused], []) == [
        f"{MUTANTS[0].name}: survives verify",
        f"{MUTANTS[0].name}: survives parity --run",
        "right: refused, and changes nothing",
    ]


def test_the_criteria_draw_the_line_where_their_descriptions_do() -> None:
    reference = np.array([[1.0, -100.0, 0.0]], np.float32)

    def off_by(*errors: float) -> np.ndarray:
        return (reference + np.array([errors])).astype(np.float32)

    assert not allclose(1e-5)(reference, off_by(1.5e-5, 0, 0))  # 1e-5 and 1e-5 of 1
    assert allclose(1e-5)(reference, off_by(0, 0, 1.5e-5))
    assert not elementwise(reference, off_by(9e-6, 9e-4, 9e-6))  # within one of both
    assert elementwise(reference, off_by(0, 0, 2e-5))
    assert elementwise(reference, np.array([[np.nan, -100, 0]], np.float32))
    assert not mean_absolute(reference, off_by(2e-3, 0, 0))
    assert mean_absolute(reference, off_by(2e-3, 2e-3, 0))
    assert mean_absolute(reference, np.array([[np.nan, -100, 0]], np.float32))
    assert not not_finite(reference, off_by(50, 50, 50))
    assert not_finite(reference, np.array([[np.inf, 0, 0]], np.float32))
    assert [criterion.name for criterion in CRITERIA] == list(NAMES[1:])
