"""`predict --window series`: one window for the files of a series."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import Result

from tumorseg_runtime import Segmenter
from tumorseg_runtime.core.errors import CheckFailedError, InputError
from tumorseg_runtime.images.dicom.series import series_spans
from tumorseg_runtime.images.frame import WindowedFile
from tumorseg_runtime.images.frames import read_frame, read_frames
from tumorseg_runtime.images.read import read_image

Array = npt.NDArray[Any]
Write = Callable[..., Path]
Predict = Callable[..., Result]


def values(low: int, high: int, shape: tuple[int, ...] = (20, 24), kind: Any = np.uint16) -> Array:
    drawn = np.random.default_rng(low).integers(low, high + 1, shape)
    drawn.flat[:2] = low, high
    return drawn.astype(kind)


def test_the_range_is_that_of_the_series_in_its_own_unit(write: Write, tmp_path: Path) -> None:
    one, two = {"SeriesInstanceUID": "1.1"}, {"SeriesInstanceUID": "1.2"}
    scaled = {"RescaleSlope": 2, "RescaleIntercept": -100}
    padded = values(300, 900)
    padded[0] = 60000
    stored: dict[str, tuple[Array, dict[str, Any]]] = {
        "a": (values(100, 500), one),
        "b": (values(50, 1000), one | scaled),  # 0 to 1900
        "c": (padded, one | {"PixelPaddingValue": 60000}),
        "inverted": (values(200, 400), one | {"PhotometricInterpretation": "MONOCHROME1"}),
        "own": (values(0, 9999), one | {"WindowCenter": 500, "WindowWidth": 1000}),
        "bytes": (values(3, 90, kind=np.uint8), one),
        "colour": (values(0, 255, (20, 24, 3), np.uint8), one),
        "other": (values(0, 9000), two),
        "clip": (values(10, 4000, (3, 20, 24)), {}),
        "alone": (values(20, 30), {}),
    }
    paths = {name: write(tmp_path / f"{name}.dcm", v, **facts) for name, (v, facts) in stored.items()}
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(paths["a"].read_bytes()[:-100])
    spans = series_spans([*paths.values(), broken])
    found = {path.stem: span for path, span in spans.items()}
    assert found == {
        **dict.fromkeys(("a", "b", "c", "inverted"), (0, 1900)),
        "other": (0, 9000), "clip": (10, 4000), "alone": (20, 30),
    }  # fmt: skip
    for name, span in found.items():
        frames = list(read_frames(WindowedFile(paths[name], span)))
        whole, facts = stored[name]
        for frame, plain in zip(frames, whole if len(frames) > 1 else [whole], strict=True):
            unit = plain * 2.0 - 100 if "RescaleSlope" in facts else plain.astype(float)
            expected = np.rint(np.clip((unit - span[0]) / (span[1] - span[0]) * 255, 0, 255))
            if name == "inverted":
                expected = 255 - expected
            if name == "c":
                expected[0] = 0
            np.testing.assert_array_equal(frame.pixels, expected, name)
    np.testing.assert_array_equal(  # alone in its series: as without
        read_frame(WindowedFile(paths["alone"], found["alone"])).pixels, read_frame(paths["alone"]).pixels
    )


def test_predict_takes_the_window_that_is_asked_for(
    small_bundle: Path, run_predict: Predict, write: Write, scene: Callable[..., Array], tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    facts = {"SeriesInstanceUID": "1.1"}
    deep = [scene(40, 50, seed=seed).astype(np.uint16) * 16 for seed in range(2)]
    paths = [write(folder / f"{n}.dcm", v // (1 + 2 * n), **facts) for n, v in enumerate(deep)]
    write(folder / "broken.dcm", deep[0], **facts, Rows=90)
    masks = {}
    for window in ("image", "series"):
        result = run_predict(small_bundle, folder, "--out", tmp_path / window, "--window", window)
        assert isinstance(result.exception, CheckFailedError)
        assert "1 of 3 files could not be segmented" in str(result.exception)
        assert ("3 files are read once before" in result.output) == (window == "series")
        masks[window] = [read_image(tmp_path / f"{window}/masks/{n}.png") > 0 for n in range(2)]
        assert json.loads((tmp_path / window / "predictions.json").read_text())["window"] == window
    spans = series_spans(paths)
    with Segmenter.open(small_bundle) as segmenter:
        for n, path in enumerate(paths):
            assert (masks["image"][n] == segmenter.predict(path).mask).all()
            assert (masks["series"][n] == segmenter.predict(WindowedFile(path, spans[path])).mask).all()
    assert (masks["image"][1] != masks["series"][1]).any()
    again = (small_bundle, folder, "--out", tmp_path / "series", "--resume")
    result = run_predict(*again, "--window", "series")
    assert "2 of 3 files are done already" in result.output
    refused = run_predict(*again)
    assert isinstance(refused.exception, InputError)
    assert "was made with another window" in str(refused.exception)
    with pytest.raises(InputError, match=r"broken\.dcm"):
        list(read_frames(folder / "broken.dcm"))
