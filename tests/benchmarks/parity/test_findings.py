"""The command as a whole: certificate, JUnit, annotations, layers and margins."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import click.testing
import onnx
import pytest
from onnx import numpy_helper

from tumorseg_benchmarks.commands.parity import parity
from tumorseg_benchmarks.parity.findings import CERTIFICATE, Findings
from tumorseg_benchmarks.parity.preprocess_paths import VectorCheck
from tumorseg_benchmarks.parity.rows import ParityRow
from tumorseg_benchmarks.reports.ci import to_annotations, to_junit
from tumorseg_benchmarks.variants.variants import VARIANTS
from tumorseg_runtime.bundle.bundle import Bundle, sha256_of
from tumorseg_runtime.core.errors import InputError, ParityError
from tumorseg_runtime.device.cache import PASSED, RANKING, Entry, beside, device_facts, write_ranking
from tumorseg_runtime.parity.budget import BUDGETS

if TYPE_CHECKING:
    from tumorseg_train.networks.run import Run

pytestmark = pytest.mark.usefixtures("few_conformance_files")


def invoke(*arguments: str | Path) -> click.testing.Result:
    return click.testing.CliRunner().invoke(parity, [str(argument) for argument in arguments])


def scale_a_layer(model: onnx.ModelProto) -> None:
    node = [node for node in model.graph.node if node.op_type == "Conv"][8]
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == node.input[1]]
    array = numpy_helper.to_array(tensor) * 1.01
    tensor.CopyFrom(numpy_helper.from_array(array.astype("float32"), tensor.name))


@pytest.mark.slow
def test_a_breach_names_image_pixels_and_layer_for_people_and_for_ci(
    mutate: Callable[..., Path], tiny_run: Run, tmp_path: Path
) -> None:
    out, folder, junit = tmp_path / "out", tmp_path / "device", tmp_path / "ci/parity.xml"
    result = invoke(
        mutate(scale_a_layer), "--run", tiny_run.root, "--limit", "3", "--thinnest", "1", "--layer-diff",
        "--out", out, "--device-folder", folder, "--junit", junit, "--annotations",
    )  # fmt: skip
    assert isinstance(result.exception, ParityError)
    assert result.exception.exit_code == 1
    assert "breaches of parity, expected none: ONNX FP32, ONNX Runtime CPU: " in str(result.exception)
    errors = [
        line for line in result.stdout.splitlines() if line.startswith("::error title=tumorseg parity::")
    ]
    assert any(
        "layer_diff: model.onnx: " in line and "is the first layer that diverges" in line for line in errors
    )
    assert not any("model.fp16.onnx" in line for line in errors)
    values = json.loads((out / "parity.json").read_text())
    first = {layer_diff["artefact"]: layer_diff["first"] for layer_diff in values["layer_diff"]}
    assert first["model.fp16.onnx"] is None
    assert first["model.onnx"].startswith("encoder.layer2")
    assert len(values["thinnest"]) == 1
    split = [row for row in values["rows"] if row["images"] == "test"]
    assert all(row["report"]["images"][0]["image"] == values["thinnest"][0]["image"] for row in split)
    assert all(len(row["report"]["images"]) in (3, 4) for row in split)
    assert {row["noninferiority"]["least"] for row in split} == {0.999}
    page = (out / "parity.md").read_text()
    for title in ("Bytes to tensor", "Decisions", "Task", "Thinnest margins", "Layers of model.onnx"):
        assert f"## {title}\n" in page
    certificate = json.loads((folder / CERTIFICATE).read_text())
    assert certificate["passed"] is False
    suite = ElementTree.parse(junit).getroot()[0]
    failed = {case.get("classname") for case in suite if case.find("failure") is not None}
    assert failed == {"onnx-fp32-onnxruntime-cpu"}


@pytest.mark.slow
def test_the_certificate_holds_what_was_compared_by_what_and_where(
    tiny_bundle: Bundle, tiny_run: Run, tmp_path: Path
) -> None:
    root = tmp_path / "bundle"
    shutil.copytree(tiny_bundle.root, root)
    bundle = Bundle.open(root)
    arguments = (root, "--run", tiny_run.root, "--limit", "2", "--out", tmp_path / "out")
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    certificate = json.loads((beside(bundle) / CERTIFICATE).read_text())
    assert certificate["passed"] is True
    assert certificate["bundle"] == bundle.digest()
    assert certificate["device"] == device_facts()
    assert certificate["budgets"]["fp32"]["relative_error"] == BUDGETS["fp32"].relative_error
    item = tiny_run.manifest().part("test")[0]
    assert certificate["images"][item.image] == item.files[item.image]
    name = bundle.golden[0]
    assert certificate["images"][name] == sha256_of(root / f"golden/{name}.png")
    versions = [
        row["report"]["versions"]
        for row in certificate["rows"]
        if row["engine"] == "onnxruntime" and row["report"]
    ]
    assert versions
    assert all("onnxruntime" in one for one in versions)
    assert Bundle.open(root).digest() == bundle.digest()  # still sealed


@pytest.mark.slow
def test_a_device_folder_that_verify_refuses_is_refused_here_too(tiny_bundle: Bundle, tmp_path: Path) -> None:
    folder, junit = tmp_path / "device", tmp_path / "parity.xml"
    write_ranking(folder, tiny_bundle, (Entry("onnxruntime", "cpu", "fp32", 1, {}, PASSED, 0.01),))
    (folder / RANKING).write_text((folder / RANKING).read_text()[:-40])
    result = invoke(
        tiny_bundle.root, "--device-folder", folder, "--out", tmp_path / "out", "--no-certificate",
        "--junit", junit,
    )  # fmt: skip
    assert isinstance(result.exception, ParityError)
    assert not (folder / CERTIFICATE).exists()
    assert f": 1 breaches of parity, expected none: {folder / RANKING}: " in str(result.exception)
    values = json.loads((tmp_path / "out/parity.json").read_text())
    assert len(values["device_folder"]) == 1
    suite = ElementTree.parse(junit).getroot()[0]
    failed = {case.get("classname") for case in suite if case.find("failure") is not None}
    assert failed == {"device folder"}


def test_what_needs_a_run_says_so(tiny_bundle: Bundle, tmp_path: Path) -> None:
    for option in (["--layer-diff"], ["--thinnest", "2"]):
        result = invoke(tiny_bundle.root, *option, "--out", tmp_path)
        assert isinstance(result.exception, InputError)
        assert f"{option[0]} was given without --run" in str(result.exception)
    result = invoke(tiny_bundle.root, "--annotations", "--json", "--out", tmp_path)
    assert "expected one: drop the other" in str(result.exception)


@pytest.fixture
def findings() -> Findings:
    vectors = (
        VectorCheck("runtime", "a.png", "passed"),
        VectorCheck("runtime", "b.png", "refused", "100% wrong\nbits \x00 & <more>"),
        VectorCheck("GPU", "a.png", "unverified", "no NVIDIA driver"),
    )
    row = ParityRow(VARIANTS[1], "golden", 4, "refused", "does not open", None)
    gone = ParityRow(VARIANTS[2], "all", None, "unverified", "not exported", None)
    return Findings(vectors, (row, gone))


def test_junit_has_a_case_for_everything_and_a_reason_for_what_was_skipped(findings: Findings) -> None:
    suite = ElementTree.fromstring(to_junit(findings))[0]
    assert {name: suite.get(name) for name in ("tests", "failures", "skipped")} == {
        "tests": "5", "failures": "2", "skipped": "2",
    }  # fmt: skip
    cases = {(case.get("classname"), case.get("name")): case for case in suite}
    assert len(cases) == 5
    assert not list(cases["preprocessing.runtime", "a.png"])
    failure = cases["preprocessing.runtime", "b.png"].find("failure")
    assert failure is not None
    assert failure.text == "100% wrong\nbits \ufffd & <more>"
    failure = cases["onnx-fp32-onnxruntime-cpu", "golden images, batch 4"].find("failure")
    assert failure is not None
    assert failure.get("message") == "ONNX FP32, ONNX Runtime CPU: does not open"
    skipped = cases["onnx-fp16-onnxruntime-cpu", "all"].find("skipped")
    assert skipped is not None
    assert skipped.get("message") == "not exported"


def test_annotations_are_one_line_each(findings: Findings) -> None:
    assert to_annotations(findings) == [
        "::error title=tumorseg parity::preprocessing, runtime: b.png: 100%25 wrong%0Abits \x00 & <more>",
        "::error title=tumorseg parity::ONNX FP32, ONNX Runtime CPU: does not open",
    ]
