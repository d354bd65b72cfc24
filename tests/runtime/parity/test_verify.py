from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tumorseg_runtime.backends import has_artefact
from tumorseg_runtime.bundle.bundle import INDEX, Artefact, Bundle, FileRecord, sha256_of
from tumorseg_runtime.cli.verify import verify
from tumorseg_runtime.core.errors import BundleError, CheckFailedError, InputError
from tumorseg_runtime.device.cache import Entry, write_ranking
from tumorseg_runtime.device.engines import EngineKey, Profile, write_engine
from tumorseg_runtime.inference.segmenter import door_of
from tumorseg_runtime.parity import verify as module
from tumorseg_runtime.parity.verify import PASSED, REFUSED, UNVERIFIED, devices_of, verify_bundle


def run(*args: object) -> Result:
    return CliRunner().invoke(verify, [str(arg) for arg in args])


@pytest.mark.usefixtures("few_conformance_files")
def test_a_whole_bundle_passes_where_it_can_run_and_says_what_could_not(small_bundle: Path) -> None:
    found = verify_bundle(small_bundle, door_of, backend="onnxruntime")
    assert found.passed
    statuses = {(check.device, check.status) for check in found.checks}
    assert ("cpu", PASSED) in statuses
    assert {device for device, _ in statuses} == {"cpu", "cuda", "tensorrt"}
    for check in found.checks:
        assert check.detail
        if check.status == UNVERIFIED:
            assert "no " in check.detail or "without" in check.detail


@pytest.mark.slow
def test_the_command_prints_both_and_exits_0(small_bundle: Path) -> None:
    result = run(small_bundle, "--backend", "onnxruntime")
    assert result.exit_code == 0, result.output
    assert "every file is as it was sealed" in result.output
    assert "conformance files right in every bit, 3 golden images through " in result.output
    *checks, verdict = result.output.splitlines()[2:]
    lines = [line.partition(":")[0] for line in checks]
    assert (
        verdict
        == f"{small_bundle}: verified: {lines.count(PASSED)} passed, {lines.count(UNVERIFIED)} unverified"
    )
    assert lines == sorted(lines, key=lambda line: line == UNVERIFIED)


def test_a_device_with_a_number_and_backends_that_do_not_know_it(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "has_artefact", lambda *which: True)
    monkeypatch.setattr(module, "why_unavailable", lambda backend, device: f"no {device}")
    for device in ("cuda", "cuda:1"):
        checks = verify_bundle(small_bundle, door_of, device=device).checks
        assert {check.backend.partition("-")[0] for check in checks} == {"onnxruntime", "tensorrt"}
        assert {(check.device, check.status, check.detail) for check in checks} == {
            (device, UNVERIFIED, f"no {device}")
        }


@pytest.mark.usefixtures("few_conformance_files")
def test_backends_without_an_artefact_are_left_out_unless_asked_for_by_name(small_bundle: Path) -> None:
    values = json.loads(run(small_bundle, "--device", "cpu", "--json").stdout)
    assert values["passed"] is True
    assert [(check["backend"], check["status"]) for check in values["checks"]] == [("onnxruntime", PASSED)]
    (asked,) = verify_bundle(small_bundle, door_of, backend="ncnn").checks
    assert (asked.backend, asked.status) == ("ncnn", UNVERIFIED)


def test_one_file_of_mnn_is_checked_with_both_of_its_backends(small_bundle: Path) -> None:
    bundle = Bundle.read_index(small_bundle)
    there = {}
    for name in ("mnn", "mnn-exact", "onnxruntime"):
        for format in ("mnn", "mnn-exact"):
            only = dataclasses.replace(bundle, artefacts=(Artefact("f", format, "fp32", None, {}, ()),))
            there[name, format] = has_artefact(only, name, "fp32")
    assert [key for key, value in there.items() if value] == [
        ("mnn", "mnn"),
        ("mnn-exact", "mnn"),
        ("mnn-exact", "mnn-exact"),
    ]
    assert not has_artefact(bundle, "onnxruntime", "fp16")


def test_an_engine_of_the_device_folder_counts_as_an_artefact(small_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(small_bundle)
    assert not has_artefact(bundle, "tensorrt", "fp16", tmp_path)
    key = EngineKey(
        onnx_sha256="0" * 64, bundle_sha256=bundle.digest(), precision="fp16", tool="tensorrt",
        tool_version="10.3.0", capabilities=(87,), gpu="Orin", profile=Profile(1, 1, 4), workspace_mb=None,
    )  # fmt: skip
    write_engine(tmp_path / "a.engine", b"engine", key)
    assert has_artefact(bundle, "tensorrt", "fp16", tmp_path)
    assert not has_artefact(bundle, "tensorrt", "fp32", tmp_path)


def test_a_precision_that_the_bundle_lacks_is_not_passed(small_bundle: Path) -> None:
    result = run(small_bundle, "--precision", "fp16")
    assert isinstance(result.exception, CheckFailedError)
    assert "has no artefact of what was asked for" in str(result.exception)


@pytest.mark.usefixtures("few_conformance_files")
def test_a_breach_is_exit_status_1(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    root = make_bundle(tmp_path / "b", golden_error=0.5)
    result = run(root, "--backend", "onnxruntime")
    assert isinstance(result.exception, CheckFailedError)
    assert "refused: onnxruntime cpu fp32: " in result.output
    assert "must not serve" in str(result.exception)
    poisoned = run(make_bundle(tmp_path / "p", poison=True), "--device", "cpu", "--backend", "onnxruntime")
    assert isinstance(poisoned.exception, CheckFailedError) or poisoned.exit_code == 0


def test_an_altered_bundle_is_not_run(small_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(small_bundle, tmp_path / "copy"))
    (copy / "golden/scene_0.png").write_bytes(b"x")
    result = run(copy)
    assert isinstance(result.exception, CheckFailedError)
    assert "refused: golden/scene_0.png has 1 bytes" in result.output
    assert "passed" not in result.output


def test_nothing_verified_is_not_passed(small_bundle: Path) -> None:
    result = run(small_bundle, "--backend", "onnxruntime", "--precision", "fp16")
    assert isinstance(result.exception, CheckFailedError)
    assert "nothing could be run here" in str(result.exception)
    assert "has no fp16 artefact for onnxruntime" in result.output


def test_what_is_no_bundle_or_no_name_is_bad_input(small_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"has no bundle.json"):
        verify_bundle(tmp_path, door_of)
    with pytest.raises(InputError, match="backend is 'x'"):
        verify_bundle(small_bundle, door_of, backend="x")
    with pytest.raises(InputError, match="device is 'x'"):
        verify_bundle(small_bundle, door_of, device="x")


def test_devices_of_a_backend() -> None:
    assert devices_of("onnxruntime") == ["cpu", "cuda", "tensorrt"]


@pytest.mark.usefixtures("few_conformance_files")
def test_what_a_device_folder_holds_is_looked_at(small_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(small_bundle)
    key = EngineKey(
        onnx_sha256="0" * 64, bundle_sha256=bundle.digest(), precision="fp16", tool="tensorrt",
        tool_version="10.3.0", capabilities=(87,), gpu="Orin", profile=Profile(1, 1, 4), workspace_mb=None,
    )  # fmt: skip
    write_engine(tmp_path / "a.engine", b"engine", key)
    write_ranking(tmp_path, bundle, (Entry("onnxruntime", "cpu", "fp32", 1, {}, PASSED, 0.01),))
    assert verify_bundle(small_bundle, door_of, device="cpu", device_folder=tmp_path).passed
    (tmp_path / "a.engine").write_bytes(b"damage")
    ranking = tmp_path / "ranking.json"
    ranking.write_text(ranking.read_text().replace(bundle.digest(), bundle.digest()[::-1]))
    found = verify_bundle(small_bundle, door_of, device="cpu", device_folder=tmp_path)
    assert not found.passed
    assert [line.split(":")[1].split()[0] for line in found.problems] == ["its", "is"]


def test_a_file_that_does_not_open_on_a_cpu_is_refused_and_not_unverified(
    small_bundle: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(small_bundle, tmp_path / "copy"))
    (root / "model.onnx").write_bytes(b"no graph")
    bundle = Bundle.read_index(root)
    seal = FileRecord(sha256_of(root / "model.onnx"), 8)
    sealed = dataclasses.replace(bundle, files={**bundle.files, "model.onnx": seal})
    (root / INDEX).write_text(sealed.to_index(), encoding="utf-8")
    (check,) = verify_bundle(root, door_of, backend="onnxruntime", device="cpu").checks
    assert check.status == REFUSED
    assert "onnxruntime cannot open model.onnx" in check.detail
