import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tumorseg_export.bundle.sign import new_key
from tumorseg_export.commands.export import (
    MAX_NOTES,
    export,
    parse_options,
    parse_size,
    read_notes,
    summarise,
    table,
)
from tumorseg_runtime.bundle.bundle import Bundle, sha256_of
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import InputError
from tumorseg_train.networks.run import CHECKPOINT, Run


@pytest.mark.slow
def test_json_is_the_result_and_steps_go_elsewhere(tiny_run: Run, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    arguments = [str(tiny_run.root), "--out", str(out), "--targets", "onnx", "--golden", "3", "--json"]
    notes = tmp_path / "notes.md"
    notes.write_text("## Sources\nDrawn by a program.\n")
    arguments += ["--notes", str(notes)]
    done = CliRunner().invoke(export, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    result = json.loads(done.stdout)
    bundle = Bundle.open(out)
    assert result["bundle"] == str(out)
    assert result["sha256"] == bundle.digest()
    assert result["golden_images"] == 3
    assert (out / "MODEL_CARD.md").read_text().endswith("\n## Sources\nDrawn by a program.\n")
    (artefact,) = result["artefacts"]
    assert artefact["file"] == "model.onnx"
    assert artefact["bytes"] == (out / "model.onnx").stat().st_size
    assert sha256_of(out / "model.onnx") == bundle.files["model.onnx"].sha256
    assert 0 < artefact["max_logit_error"] < 1e-3
    assert artefact["verdicts"][0]["status"] == "passed"
    assert "made onnx (" in done.stderr
    verdict = f"{out}: {bundle.name}, sealed as {bundle.digest()[:16]}, {result['seconds']} s"
    assert done.stderr.splitlines()[-1] == verdict


def test_table_has_a_line_per_artefact(tiny_bundle: Bundle) -> None:
    result = summarise(tiny_bundle, 12.34)
    lines = table(result).splitlines()
    assert lines[0].split("  ")[0] == "artefact"
    assert lines[1].startswith("model.onnx       57.3  ")
    assert lines[2].startswith("model.fp16.onnx  28.7  ")
    assert all("passed: onnxruntime cpu" in line and f" of {14 * 64 * 64}" in line for line in lines[1:3])
    assert (result["name"], result["sha256"]) == (tiny_bundle.name, tiny_bundle.digest())
    assert result["seconds"] == 12.3
    unverified = [v for a in tiny_bundle.artefacts for v in a.parity if v.status == "unverified"]
    assert sum(line.startswith("unverified: ") for line in lines) == len(unverified)
    assert all(any(verdict.detail in line for line in lines) for verdict in unverified)


@pytest.mark.slow
def test_flags_reach_the_checkpoint_and_the_signature_the_bundle(tiny_run: Run, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="cryptography is not installed (extra sign)")
    public = new_key(tmp_path / "key.pem")
    weights, out = tiny_run.root / CHECKPOINT, tmp_path / "bundle"
    flags = {
        "--arch": "unet", "--encoder": "resnet18", "--classes": "lesion", "--size": "64x96",
        "--mean": "0,0.5,1", "--std": "1,2,0.5", "--threshold": "0.25", "--images": "phantoms",
        "--targets": "onnx", "--golden": "3", "--out": str(out), "--sign": str(tmp_path / "key.pem"),
    }  # fmt: skip
    arguments = [str(weights), *(word for pair in flags.items() for word in pair), "--json"]
    done = CliRunner().invoke(export, arguments, catch_exceptions=False)
    assert json.loads(done.stdout)["artefacts"][0]["pixels"] == 13 * 64 * 96
    assert "foreign checkpoint: unet with resnet18" in done.stderr
    bundle = Bundle.open(out)
    assert bundle.contract == Contract(
        64, 96, (0.0, 0.5, 1.0), (1.0, 2.0, 0.5), classes=("lesion",), threshold=0.25
    )
    assert bundle.provenance["golden_images"] == "phantoms, drawn for this export"
    assert "The golden images are phantoms: " in (out / "MODEL_CARD.md").read_text()
    bundle.signed_by(public)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--size", "large"], "--size is 'large', expected pixels such as 512, or HEIGHTxWIDTH"),
        (["--size", "64x64x3"], "--size is '64x64x3'"),
        (["--mean", "0.5;0.5"], "--mean is '0.5;0.5', expected numbers such as"),
        (["--sign", "absent.pem"], "absent.pem: does not exist, expected a private key"),
        (["--arch", "unet"], "is a run, which says itself what it is; got --arch"),
    ],
)
def test_unusable_flags_are_bad_input(tiny_run: Run, tmp_path: Path, flags: list[str], message: str) -> None:
    arguments = [str(tiny_run.root), "--out", str(tmp_path / "bundle"), *flags]
    with pytest.raises(InputError, match=message):
        CliRunner().invoke(export, arguments, catch_exceptions=False)


def test_sizes_are_height_and_width() -> None:
    assert parse_size("512") == (512, 512)
    assert parse_size("480x640") == (480, 640)


def test_notes_are_text_of_a_bounded_size(tmp_path: Path) -> None:
    notes = tmp_path / "notes.md"
    notes.write_text("## Sources\nCC BY 4.0 é\n", encoding="utf-8")
    assert read_notes(notes) == "## Sources\nCC BY 4.0 é\n"
    for content in (b"\xff\xfe", b"x" * (MAX_NOTES + 1)):
        notes.write_bytes(content)
        with pytest.raises(InputError, match=r"is not a UTF-8 text of at most 65536 bytes: give --notes"):
            read_notes(notes)


def test_unknown_target_is_bad_input(tiny_run: Run, tmp_path: Path) -> None:
    arguments = [str(tiny_run.root), "--out", str(tmp_path / "bundle"), "--targets", "onnx,coreml"]
    with pytest.raises(InputError, match="got 'coreml', expected one or more of onnx, onnx-fp16"):
        CliRunner().invoke(export, arguments, catch_exceptions=False)


def test_folder_that_is_no_run_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no run\.json"):
        CliRunner().invoke(export, [str(tmp_path), "--out", str(tmp_path / "bundle")], catch_exceptions=False)


@pytest.mark.process
def test_help_loads_neither_torch_nor_onnx() -> None:
    code = (
        "import sys; import tumorseg_export.commands.export\n"
        "sys.exit(', '.join({'torch', 'onnx', 'onnxruntime'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_checkpoint_that_is_not_there_is_said_before_anything_else(tmp_path: Path) -> None:
    arguments = [str(tmp_path / "absent"), "--out", str(tmp_path / "bundle")]
    with pytest.raises(InputError, match=r"absent: does not exist, expected a run or a checkpoint"):
        CliRunner().invoke(export, arguments, catch_exceptions=False)


def test_options_are_json_or_a_word() -> None:
    given = ("encoder_depth=4", "decoder_channels=[8, 4]", "decoder_readout=add", "decoder_use_norm=false")
    assert parse_options(given) == {
        "encoder_depth": 4,
        "decoder_channels": [8, 4],
        "decoder_readout": "add",
        "decoder_use_norm": False,
    }
    assert parse_options(()) is None
    for wrong in (("depth",), ("=4",), ("a b=4",), ("a=",), ("a=1", "a=2")):
        with pytest.raises(InputError, match="expected NAME=VALUE with each NAME once"):
            parse_options(wrong)
