from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result

from tumorseg_runtime import Bundle, Contract, Lesion, Prediction
from tumorseg_runtime.commands.predict import (
    Outputs,
    describe,
    list_images,
    make_line,
    predict,
    unique_names,
)
from tumorseg_runtime.errors import BackendError, CheckFailedError, InputError
from tumorseg_runtime.frames import Frame
from tumorseg_runtime.images import read_image, write_png

Scene = Callable[..., npt.NDArray[np.uint8]]
Maker = Callable[..., Path]


def run(*args: object) -> Result:
    return CliRunner().invoke(predict, [str(arg) for arg in args])


@pytest.fixture
def folder(tmp_path: Path, scene: Scene) -> Path:
    """Two images of one name, and one in colour."""
    root = tmp_path / "in"
    for name, size, colour in (
        ("a/1.png", (70, 50), False),
        ("b/1.png", (40, 90), False),
        ("b/2.png", (64, 64), True),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_png(root / name, scene(*size, colour=colour, seed=5))
    return root


def files_in(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def lines_in(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def test_masks_overlays_and_json(small_bundle: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    result = run(small_bundle, folder, "--out", out)
    assert result.exit_code == 0, result.output
    names = ["a__1", "b__1", "b__2"]
    assert files_in(out) == [f"{kind}/{n}.png" for kind in ("masks", "overlays") for n in names] + [
        "predictions.json",
        "predictions.jsonl",
    ]
    report = json.loads((out / "predictions.json").read_text())
    assert report["bundle"] == {"name": "tiny", "sha256": Bundle.open(small_bundle).digest()}
    assert report["session"]["backend"] == "onnxruntime"
    assert report["failed"] == []
    for entry, size in zip(report["images"], ((70, 50), (40, 90), (64, 64)), strict=True):
        mask = read_image(out / entry["masks"]["tumour"])
        assert mask.shape == size == (entry["height"], entry["width"])
        assert set(np.unique(mask)) == {0, 255}
        assert np.count_nonzero(mask) == sum(lesion["area_px"] for lesion in entry["lesions"])
        picture, image = read_image(out / entry["overlay"]), read_image(entry["image"])
        assert picture.shape == (*size, 3)
        colour = image if image.ndim == 3 else np.dstack([image] * 3)
        assert (picture != colour).any()
        assert (picture == colour).all(axis=2).sum() > np.count_nonzero(mask == 0) * 0.8
    assert "3 images -> " in result.output
    assert "a/1.png (50x70): " in result.output


def test_json_on_standard_output(small_bundle: Path, folder: Path, tmp_path: Path) -> None:
    result = run(small_bundle, folder / "a/1.png", "--out", tmp_path / "out", "--json")
    assert json.loads(result.stdout) == json.loads((tmp_path / "out/predictions.json").read_text())


def test_a_bad_file_is_listed_and_does_not_stop_the_rest(
    small_bundle: Path, folder: Path, tmp_path: Path
) -> None:
    (folder / "a/0.png").write_bytes(b"not an image")
    result = run(small_bundle, folder, folder.parent / "gone.png", "--out", tmp_path / "out")
    assert isinstance(result.exception, CheckFailedError)
    assert str(result.exception).startswith("2 of 5 files could not be segmented")
    report = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [Path(entry["image"]).name for entry in report["failed"]] == ["0.png", "gone.png"]
    assert "expected a PNG" in report["failed"][0]["error"]
    assert len(report["images"]) == 3
    assert len(files_in(tmp_path / "out/masks")) == 3


def test_colour_for_a_gray_network_and_broken_logits_are_listed_too(
    make_bundle: Maker, folder: Path, tmp_path: Path
) -> None:
    contract = Contract(height=64, width=64, mean=(0.485,), std=(0.229,))
    result = run(make_bundle(tmp_path / "gray", contract), folder, "--out", tmp_path / "out")
    assert isinstance(result.exception, CheckFailedError)
    report = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [Path(entry["image"]).name for entry in report["failed"]] == ["2.png"]
    assert "network takes gray" in report["failed"][0]["error"]
    write_png(folder / "white.png", np.full((30, 30), 255, np.uint8))
    result = run(make_bundle(tmp_path / "poison", poison=True), folder, "--out", tmp_path / "out2")
    report = json.loads((tmp_path / "out2/predictions.json").read_text())
    assert [Path(entry["image"]).name for entry in report["failed"]] == ["white.png"]
    assert "not finite" in report["failed"][0]["error"]
    assert not (tmp_path / "out2/masks/white.png").exists()


def test_several_classes_have_a_folder_each(make_bundle: Maker, folder: Path, tmp_path: Path) -> None:
    contract = Contract(height=64, width=64, classes=("core", "rest"))
    result = run(make_bundle(tmp_path / "bundle", contract), folder / "a", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert files_in(tmp_path / "out/masks") == ["core/1.png", "rest/1.png"]


def test_a_name_that_is_not_utf8(small_bundle: Path, scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"scan \xff.png")
    write_png(path, scene(30, 30))
    result = run(small_bundle, path, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out/predictions.json").read_text())
    assert report["images"][0]["image"] == str(path)


def test_pictures_are_never_written_among_the_images(
    small_bundle: Path, folder: Path, tmp_path: Path
) -> None:
    for files, out in (([folder], folder), ([folder], folder / "deep/out"), ([tmp_path], tmp_path / "out")):
        result = run(small_bundle, *files, "--out", out)
        assert isinstance(result.exception, InputError)
        assert "expected them apart" in str(result.exception)
    assert run(small_bundle, folder, "--out", tmp_path / "out").exit_code == 0
    result = run(small_bundle, tmp_path / "out/masks/a__1.png", "--out", tmp_path / "out")
    assert "expected them apart" in str(result.exception)


def test_names_tell_files_apart(tmp_path: Path) -> None:
    def names(*paths: str) -> list[str]:
        return unique_names([tmp_path / path for path in paths])

    assert names("a/1.png", "a/2.png") == ["1", "2"]
    assert names("a/1.png", "b/1.png", "b/2.png") == ["a__1", "b__1", "b__2"]
    assert names("a/1.png", "a/1.jpg", "a/2.png") == ["1.png", "1.jpg", "2.png"]
    assert names("x/1.png", "x/1.jpg", "y/1.png") == ["x__1.png", "x__1.jpg", "y__1.png"]
    assert names("a.b.png", "a.c.png") == ["a.b", "a.c"]
    assert not any("/" in name for name in names("a/1.png", "1.png", "../1.png", "../../1.png"))
    with pytest.raises(InputError, match="differ only in case or in '__'"):
        names("a__b/c.png", "a/b__c.png", "c.png")
    with pytest.raises(InputError, match="was given twice"):
        names("a/1.png", "a/../a/1.png")
    with pytest.raises(InputError, match="differ only in case"):
        names("a/Scan.png", "a/scan.png")


def test_listing(folder: Path, tmp_path: Path) -> None:
    (folder / "notes.txt").write_text("x")
    (folder / "d.png").mkdir()
    write_png(folder / "C.PNG", np.zeros((4, 4), np.uint8))
    found = list_images((folder, tmp_path / "named.dcm"))
    assert found == [folder / n for n in ("C.PNG", "a/1.png", "b/1.png", "b/2.png")] + [
        tmp_path / "named.dcm"
    ]
    with pytest.raises(InputError, match="holds no images"):
        list_images((folder / "d.png",))


def test_a_line_names_the_largest_lesions(scene: Scene) -> None:
    def lesion(area: int) -> Lesion:
        return Lesion("tumour", area, (0, 0, 1, 1), (0.0, 0.0), ())

    frame, contract = Frame("a.png", scene(4, 6)), Contract(height=64, width=64)
    logits = np.zeros((1, 64, 64), np.float32)
    empty = Prediction(frame, np.zeros((1, 4, 6), bool), (), logits, contract, None)
    assert describe(empty) == "a.png (6x4): no lesion"
    two = dataclasses.replace(empty, lesions=(lesion(9), lesion(2)))
    assert describe(two) == "a.png (6x4): 2 lesion(s): tumour 9 px, tumour 2 px"
    five = dataclasses.replace(empty, lesions=tuple(map(lesion, (5, 4, 9, 8, 7))))
    assert describe(five) == "a.png (6x4): 5 lesion(s): tumour 9 px, tumour 8 px, tumour 7 px, 2 smaller"


def test_the_lines_hold_what_the_summary_holds(small_bundle: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "a/0.png").write_bytes(b"not an image")
    run(small_bundle, folder, "--out", tmp_path / "out")
    report = json.loads((tmp_path / "out/predictions.json").read_text())
    settings, *lines = lines_in(tmp_path / "out")
    assert settings["settings"] == {name: report[name] for name in report if name not in ("images", "failed")}
    assert [line for line in lines if "error" not in line] == report["images"]
    assert [line for line in lines if "error" in line] == report["failed"]
    assert all(0 <= line["margin"] < 0.2 for line in report["images"])


def test_probabilities_and_no_overlays(small_bundle: Path, folder: Path, tmp_path: Path) -> None:
    import cv2

    out = tmp_path / "out"
    assert run(small_bundle, folder / "a", "--out", out, "--no-overlays", "--probabilities").exit_code == 0
    assert files_in(out)[:2] == ["masks/1.png", "predictions.json"]
    maps = cv2.imread(str(out / "probabilities/1.png"), cv2.IMREAD_UNCHANGED)
    assert maps is not None
    assert (maps.dtype, maps.shape) == (np.uint16, (70, 50))
    np.testing.assert_array_equal(maps >= 32768, read_image(out / "masks/1.png") > 0)


def spy_on_judged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    from tumorseg_runtime import Segmenter

    judged: list[str] = []
    decide = Segmenter.decide

    def noted(self: Segmenter, frame: Frame, logits: Any) -> Prediction:
        judged.append(Path(frame.name).name)
        return decide(self, frame, logits)

    monkeypatch.setattr(Segmenter, "decide", noted)
    return judged


def test_resume_does_only_what_is_missing(
    small_bundle: Path, folder: Path, tmp_path: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    (folder / "b/0.png").write_bytes(b"not an image")
    run(small_bundle, folder, "--out", out)
    whole = json.loads((out / "predictions.json").read_text())
    judged = spy_on_judged(monkeypatch)
    again = run(small_bundle, folder, "--out", out, "--resume")
    assert judged == []  # the failed file is tried again, and fails
    assert "3 of 4 files are done already" in again.output
    assert isinstance(again.exception, CheckFailedError)
    assert json.loads((out / "predictions.json").read_text()) == whole
    write_png(folder / "b/0.png", scene(30, 30))
    (out / "masks/a__1.png").unlink()
    write_png(folder / "b/2.png", scene(50, 60))  # changed since
    assert run(small_bundle, folder, "--out", out, "--resume").exit_code == 0
    assert sorted(judged) == ["0.png", "1.png", "2.png"]
    report = json.loads((out / "predictions.json").read_text())
    assert sorted(Path(entry["image"]).name for entry in report["images"]) == [
        "0.png",
        "1.png",
        "1.png",
        "2.png",
    ]
    assert report["failed"] == []
    assert (out / "masks/a__1.png").is_file()


def test_a_killed_run_leaves_a_half_line_and_is_resumed(
    small_bundle: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run(small_bundle, folder, "--out", out)
    text = (out / "predictions.jsonl").read_text()
    (out / "predictions.json").unlink()
    (out / "predictions.jsonl").write_text(text[: len(text) - 40])
    judged = spy_on_judged(monkeypatch)
    assert run(small_bundle, folder, "--out", out, "--resume").exit_code == 0
    assert judged == ["2.png"]
    assert (out / "predictions.jsonl").read_text() == text


def test_resume_refuses_other_settings_and_damage(
    small_bundle: Path, make_bundle: Maker, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(small_bundle, folder, "--out", out)
    other = make_bundle(tmp_path / "other", golden_error=0.1)
    for args, differing in (((other,), "bundle"), ((small_bundle, "--probabilities"), "outputs")):
        result = run(*args, folder, "--out", out, "--resume")
        assert isinstance(result.exception, InputError)
        assert f"was made with another {differing}, expected the same" in str(result.exception)
    (out / "predictions.jsonl").write_text("{}\n")
    assert "is damaged" in str(run(small_bundle, folder, "--out", out, "--resume").exception)
    assert run(small_bundle, folder, "--out", out).exit_code == 0


def test_a_backend_that_fails_again_and_again_ends_the_run(
    small_bundle: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tumorseg_runtime.backends.onnxruntime import OnnxRuntimeSession

    def die(*_: object) -> None:
        raise BackendError("the device is gone")

    for index in range(5):
        write_png(folder / f"c{index}.png", np.zeros((5, 5), np.uint8))
    monkeypatch.setattr(OnnxRuntimeSession, "infer", die)
    result = run(small_bundle, folder, "--out", tmp_path / "out")
    assert isinstance(result.exception, BackendError)
    assert "3 files in a row failed, the rest was not tried: the device is gone" in str(result.exception)
    monkeypatch.undo()
    assert run(small_bundle, folder, "--out", tmp_path / "out", "--resume").exit_code == 0


def test_a_bar_on_a_terminal(
    small_bundle: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tumorseg_runtime.commands import predict as module

    class Terminal:
        def __init__(self) -> None:
            self.text = ""

        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> None:
            self.text += text

        def flush(self) -> None:
            pass

    terminal = Terminal()
    monkeypatch.setattr(module, "sys", SimpleNamespace(stderr=terminal))
    result = run(small_bundle, folder, "--out", tmp_path / "out")
    assert "3/3" in terminal.text
    assert "a/1.png" not in result.stdout


def test_300_images_hold_no_memory(small_bundle: Path, tmp_path: Path) -> None:
    import tracemalloc

    folder = tmp_path / "many"
    folder.mkdir()
    for index in range(300):
        write_png(folder / f"{index:03}.png", np.full((8, 8), index % 256, np.uint8))
    few = tmp_path / "few"
    few.mkdir()
    for index in range(20):
        write_png(few / f"{index}.png", np.zeros((8, 8), np.uint8))

    def peak(source: Path) -> int:
        tracemalloc.start()
        assert run(small_bundle, source, "--out", tmp_path / f"out {source.name}").exit_code == 0
        value = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return value

    peak(few)  # what is loaded at the first use
    small, large = peak(few), peak(folder)
    assert len(lines_in(tmp_path / "out many")) == 301
    # paths, names and the captured output, about 1 kB per image; a prediction would hold 16 kB of logits
    assert large - small < 280 * 3000


def test_dicom_files_frames_and_no_patient_data(
    small_bundle: Path, tmp_path: Path, scene: Scene, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pydicom", reason="pydicom is not installed (extra dicom)")
    import importlib.util

    spec = importlib.util.spec_from_file_location("dicom_files", Path(__file__).with_name("test_dicom.py"))
    assert spec is not None
    assert spec.loader is not None
    dicom = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(dicom)
    folder = tmp_path / "in"
    folder.mkdir()
    dicom.write(folder / "one.dcm", scene(60, 70), PixelSpacing=[0.5, 0.5])
    dicom.write(folder / "1.2.840.99", np.stack([scene(40, 50, seed=seed) for seed in range(3)]))
    dicom.write(folder / "broken.dcm", scene(30, 30), Rows=90)
    dicom.write(folder / "empty.dcm", scene(30, 30), PixelData=None)
    (folder / "notes").write_text("no image")
    out = tmp_path / "out"
    result = run(small_bundle, folder, "--out", out)
    assert isinstance(result.exception, CheckFailedError)
    masks = ["1.2.840[0].png", "1.2.840[1].png", "1.2.840[2].png", "one.png"]
    assert files_in(out / "masks") == masks
    report = json.loads((out / "predictions.json").read_text())
    assert [Path(line["image"]).name for line in report["failed"]] == ["broken.dcm", "empty.dcm"]
    (one,) = [line for line in report["images"] if line["image"].endswith("one.dcm")]
    assert one["spacings"][0]["row_mm"] == 0.5
    assert sum(lesion["area_mm2"] for lesion in one["lesions"]) == pytest.approx(
        0.25 * sum(lesion["area_px"] for lesion in one["lesions"])
    )
    assert "mm2)" in result.output
    written = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    printed = result.output + str(result.exception) + "".join(capfd.readouterr())
    for value in dicom.PATIENT.values():
        for part in value.split("^"):
            assert part.encode() in (folder / "one.dcm").read_bytes()
            assert part.encode() not in written
            assert part not in printed
    assert "2 of 4 files are done already" in run(small_bundle, folder, "--out", out, "--resume").output
    assert len(json.loads((out / "predictions.json").read_text())["images"]) == 4


def test_a_frame_never_overwrites_another_files_mask(tmp_path: Path, scene: Scene) -> None:
    result = SimpleNamespace(
        prediction=SimpleNamespace(frame=Frame("in.dcm[0]", scene(4, 4), (), 0, 2)), name="in.dcm[0]"
    )
    outputs = Outputs(tmp_path, overlays=False, probabilities=False)
    line = make_line(result, Path("in.dcm"), "in", outputs, {"in[0]", "in"})  # type: ignore[arg-type]
    assert "its outputs would be named in[0], like another file's" in line["error"]
