"""`tumorseg predict`: masks, overlays, maps and JSON of a folder of images."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import Result

from tumorseg_runtime import Bundle, Contract
from tumorseg_runtime.core.errors import CheckFailedError, InputError
from tumorseg_runtime.images.read import read_image, write_png

Scene = Callable[..., npt.NDArray[np.uint8]]
Maker = Callable[..., Path]
Run = Callable[..., Result]


def files_in(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def lines_in(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def test_masks_overlays_and_json(
    run_predict: Run, small_bundle: Path, image_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "out"
    result = run_predict(small_bundle, image_folder, "--out", out)
    assert result.exit_code == 0, result.output
    names = ["2", "a__1", "b__1"]
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


def test_json_on_standard_output(
    run_predict: Run, small_bundle: Path, image_folder: Path, tmp_path: Path
) -> None:
    result = run_predict(small_bundle, image_folder / "a/1.png", "--out", tmp_path / "out", "--json")
    assert json.loads(result.stdout) == json.loads((tmp_path / "out/predictions.json").read_text())


def test_a_bad_file_is_listed_and_does_not_stop_the_rest(
    run_predict: Run, small_bundle: Path, image_folder: Path, tmp_path: Path
) -> None:
    (image_folder / "a/0.png").write_bytes(b"not an image")
    result = run_predict(
        small_bundle, image_folder, image_folder.parent / "gone.png", "--out", tmp_path / "out"
    )
    assert isinstance(result.exception, CheckFailedError)
    assert str(result.exception).startswith("2 of 5 files could not be segmented")
    report = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [Path(entry["image"]).name for entry in report["failed"]] == ["0.png", "gone.png"]
    assert "expected a PNG" in report["failed"][0]["error"]
    assert len(report["images"]) == 3
    assert len(files_in(tmp_path / "out/masks")) == 3


def test_colour_for_a_gray_network_and_broken_logits_are_listed_too(
    run_predict: Run, make_bundle: Maker, image_folder: Path, tmp_path: Path
) -> None:
    contract = Contract(height=64, width=64, mean=(0.485,), std=(0.229,))
    result = run_predict(make_bundle(tmp_path / "gray", contract), image_folder, "--out", tmp_path / "out")
    assert isinstance(result.exception, CheckFailedError)
    report = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [Path(entry["image"]).name for entry in report["failed"]] == ["2.png"]
    assert "network takes gray" in report["failed"][0]["error"]
    write_png(image_folder / "white.png", np.full((30, 30), 255, np.uint8))
    result = run_predict(
        make_bundle(tmp_path / "poison", poison=True), image_folder, "--out", tmp_path / "out2"
    )
    report = json.loads((tmp_path / "out2/predictions.json").read_text())
    assert [Path(entry["image"]).name for entry in report["failed"]] == ["white.png"]
    assert "not finite" in report["failed"][0]["error"]
    assert not (tmp_path / "out2/masks/white.png").exists()


def test_several_classes_have_a_folder_each(
    run_predict: Run, make_bundle: Maker, image_folder: Path, tmp_path: Path
) -> None:
    contract = Contract(height=64, width=64, classes=("core", "rest"))
    result = run_predict(
        make_bundle(tmp_path / "bundle", contract), image_folder / "a", "--out", tmp_path / "out"
    )
    assert result.exit_code == 0, result.output
    assert files_in(tmp_path / "out/masks") == ["core/1.png", "rest/1.png"]


def test_a_name_that_is_not_utf8(run_predict: Run, small_bundle: Path, scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"scan \xff.png")
    write_png(path, scene(30, 30))
    result = run_predict(small_bundle, path, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out/predictions.json").read_text())
    assert report["images"][0]["image"] == str(path)


def test_pictures_are_never_written_among_the_images(
    run_predict: Run, small_bundle: Path, image_folder: Path, tmp_path: Path
) -> None:
    for files, out in (
        ([image_folder], image_folder),
        ([image_folder], image_folder / "deep/out"),
        ([tmp_path], tmp_path / "out"),
    ):
        result = run_predict(small_bundle, *files, "--out", out)
        assert isinstance(result.exception, InputError)
        assert "expected them apart" in str(result.exception)
    assert run_predict(small_bundle, image_folder, "--out", tmp_path / "out").exit_code == 0
    result = run_predict(small_bundle, tmp_path / "out/masks/a__1.png", "--out", tmp_path / "out")
    assert "expected them apart" in str(result.exception)


def test_the_lines_hold_what_the_summary_holds(
    run_predict: Run, small_bundle: Path, image_folder: Path, tmp_path: Path
) -> None:
    (image_folder / "a/0.png").write_bytes(b"not an image")
    run_predict(small_bundle, image_folder, "--out", tmp_path / "out")
    report = json.loads((tmp_path / "out/predictions.json").read_text())
    settings, *lines = lines_in(tmp_path / "out")
    kept = report.keys() - {"images", "volumes", "series", "failed"}
    assert settings["settings"] == {name: report[name] for name in kept}
    assert [line for line in lines if "error" not in line] == report["images"]
    assert [line for line in lines if "error" in line] == report["failed"]
    assert all(0 <= line["margin"] < 0.2 for line in report["images"])


def test_probabilities_and_no_overlays(
    run_predict: Run, small_bundle: Path, image_folder: Path, tmp_path: Path
) -> None:
    import cv2

    out = tmp_path / "out"
    assert (
        run_predict(
            small_bundle, image_folder / "a", "--out", out, "--no-overlays", "--probabilities"
        ).exit_code
        == 0
    )
    assert files_in(out)[:2] == ["masks/1.png", "predictions.json"]
    maps = cv2.imread(str(out / "probabilities/1.png"), cv2.IMREAD_UNCHANGED)
    assert maps is not None
    assert (maps.dtype, maps.shape) == (np.uint16, (70, 50))
    np.testing.assert_array_equal(maps >= 32768, read_image(out / "masks/1.png") > 0)


def test_a_bar_on_a_terminal(
    run_predict: Run, small_bundle: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tumorseg_runtime.cli import options as module

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
    monkeypatch.setattr(module, "sys", SimpleNamespace(stderr=terminal, argv=sys.argv))
    result = run_predict(small_bundle, image_folder, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "segmenting" in terminal.text
    assert "100%" in terminal.text
    assert "a/1.png" not in result.stdout


def test_workers_without_ray_are_refused(run_predict: Run, small_bundle: Path, tmp_path: Path) -> None:
    result = run_predict(small_bundle, "a.png", "--workers", 2, "--out", tmp_path / "out")
    assert isinstance(result.exception, InputError)
    assert "--engine ray" in str(result.exception)


@pytest.mark.slow
def test_300_images_hold_no_memory(run_predict: Run, small_bundle: Path, tmp_path: Path) -> None:
    import tracemalloc

    few, folder = tmp_path / "few", tmp_path / "many"
    for place, step in ((few, 15), (folder, 1)):  # pictures of one kind: what they go through is loaded once
        place.mkdir()
        for index in range(0, 300, step):
            write_png(place / f"{index:03}.png", np.full((8, 8), index % 256, np.uint8))

    def peak(source: Path) -> int:
        tracemalloc.start()
        assert run_predict(small_bundle, source, "--out", tmp_path / f"out {source.name}").exit_code == 0
        value = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return value

    peak(few)  # what is loaded at the first use: 3.6 MB, four times the limit
    small, large = peak(few), peak(folder)
    assert len(lines_in(tmp_path / "out many")) == 301
    # paths, names and the captured output, some 250 bytes per image; a prediction would hold 16 kB of logits
    assert large - small < 280 * 3000
