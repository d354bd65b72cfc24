"""How far apart the pixels lie, as the file says it, and lesions in millimetres."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tumorseg_runtime import Segmenter
from tumorseg_runtime.images.frame import Spacing
from tumorseg_runtime.images.frames import read_frame

pytest.importorskip("pydicom", reason="pydicom is not installed (extra dicom)")

from pydicom.dataset import Dataset

Array = npt.NDArray[Any]
Write = Callable[..., Path]


def test_spacing_of_the_image_before_that_of_the_detector(write: Write, tmp_path: Path) -> None:
    stored = np.zeros((4, 5), np.uint8)
    both = write(tmp_path / "a.dcm", stored, PixelSpacing=[0.5, 0.25], ImagerPixelSpacing=[1, 1])
    assert read_frame(both).spacings == (Spacing(0.5, 0.25, "PixelSpacing"),)
    detector = write(tmp_path / "b.dcm", stored, ImagerPixelSpacing=[1, 2])
    assert read_frame(detector).spacings == (Spacing(1, 2, "ImagerPixelSpacing"),)
    assert read_frame(write(tmp_path / "c.dcm", stored)).spacings == ()
    film = write(tmp_path / "d.dcm", stored, NominalScannedPixelSpacing=[0.1, 0.2])
    assert read_frame(film).spacings == (Spacing(0.1, 0.2, "NominalScannedPixelSpacing"),)
    item, measures = Dataset(), Dataset()
    measures.PixelSpacing = [3, 4]
    item.PixelMeasuresSequence = [measures]
    own = write(tmp_path / "e.dcm", stored, PixelSpacing=[1, 1], PerFrameFunctionalGroupsSequence=[item])
    assert read_frame(own).spacings == (Spacing(3, 4, "PixelSpacing"),)  # the frame's own first


def region(left: int, top: int, right: int, bottom: int, delta: float = 0.01, units: int = 3) -> Dataset:
    item = Dataset()
    item.RegionLocationMinX0, item.RegionLocationMinY0 = left, top
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = right, bottom
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = units
    item.PhysicalDeltaX, item.PhysicalDeltaY = delta, -2 * delta
    item.RegionSpatialFormat, item.RegionDataType = 1, 1
    return item


def test_ultrasound_regions_in_centimetres(write: Write, tmp_path: Path) -> None:
    stored = np.zeros((40, 50), np.uint8)
    doppler = region(0, 0, 9, 9)
    doppler.RegionSpatialFormat = 3
    items = [region(10, 5, 29, 24), region(30, 5, 49, 24, units=4), doppler]
    path = write(tmp_path / "a.dcm", stored, SequenceOfUltrasoundRegions=items)
    (found,) = read_frame(path).spacings
    assert found.source == "SequenceOfUltrasoundRegions"
    assert (found.row_mm, found.column_mm) == pytest.approx((0.2, 0.1))
    assert found.box == (10, 5, 20, 20)
    beyond = write(tmp_path / "b.dcm", stored, SequenceOfUltrasoundRegions=[region(10, 5, 52, 24)])
    assert read_frame(beyond).spacings == ()  # the image was made smaller since


def test_the_segmenter_measures_lesions_in_millimetres(
    write: Write, small_bundle: Path, scene: Callable[..., Array], tmp_path: Path
) -> None:
    path = write(tmp_path / "a.dcm", scene(90, 120), PixelSpacing=[0.5, 0.2])
    segmenter = Segmenter.open(small_bundle, threads=1)
    prediction = segmenter.predict(path)
    assert prediction.lesions
    for lesion in prediction.lesions:
        assert lesion.area_mm2 == pytest.approx(lesion.area_px * 0.1)
    clip = write(tmp_path / "clip.dcm", np.stack([scene(90, 120, seed=i) for i in range(3)]))
    results = list(segmenter.stream([path, clip, tmp_path / "gone.dcm", scene(30, 30)]))
    assert [result.index for result in results] == [0, 1, 1, 1, 2, 3]
    assert [result.error is None for result in results] == [True] * 4 + [False, True]
    assert results[2].name == f"{clip}[1]"
    np.testing.assert_array_equal(
        results[3].prediction.masks,
        segmenter.predict(scene(90, 120, seed=2)).masks,  # type: ignore[union-attr]
    )
