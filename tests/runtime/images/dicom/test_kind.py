"""Images told from the other files of a study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.dicom.kind import not_an_image

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed (extra dicom)")
PLAIN = "1.2.840.10008.1.2.1"

STORAGE = "1.2.840.10008.5.1.4.1.1."


@pytest.mark.parametrize(
    ("uid", "kind"),
    [
        (f"{STORAGE}88.11", "SR"), (f"{STORAGE}88.59", "KO"), (f"{STORAGE}11.1", "PR"),
        (f"{STORAGE}66.4", "SEG"),
        (f"{STORAGE}481.2", "RTDOSE"), ("1.2.840.10008.1.3.10", "DICOMDIR"), (f"{STORAGE}481.1", None),
        (f"{STORAGE}2", None), (f"{STORAGE}4", None), (f"{STORAGE}3.1", None), (f"{STORAGE}6.1", None),
        (f"{STORAGE}7", None), (f"{STORAGE}1.1", None), (f"{STORAGE}4.1", None), ("1.2.3.4", None),
    ],
)  # fmt: skip
def test_by_sop_class(write: Callable[..., Path], tmp_path: Path, uid: str, kind: str | None) -> None:
    path = write(tmp_path / "a.dcm", np.zeros((4, 4), np.uint8), sop_class=uid, Modality="US")
    assert not_an_image(path) == kind


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
def test_by_modality(write: Callable[..., Path], tmp_path: Path, syntax: str) -> None:
    zeros = np.zeros((4, 4), np.uint8)
    assert not_an_image(write(tmp_path / "a.dcm", zeros, Modality="KO", syntax=syntax)) == "KO"
    assert not_an_image(write(tmp_path / "b.dcm", zeros, Modality="MR", syntax=syntax)) is None


def test_what_is_no_dicom_file_is_left_to_its_reader(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(128) + b"DICM\x02\0\x10")
    assert not_an_image(tmp_path / "a") is None
    assert not_an_image(tmp_path / "gone") is None


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"])
def test_a_named_file_that_is_no_image_is_refused(
    write: Callable[..., Path], decode: Callable[[Path], object], tmp_path: Path, syntax: str
) -> None:
    zeros = np.zeros((4, 4), np.uint8)
    for number, (facts, kind) in enumerate(
        (
            ({"sop_class": f"{STORAGE}66.4"}, "SEG"),
            ({"Modality": "PR"}, "PR"),
            ({"sop_class": f"{STORAGE}481.2"}, "RTDOSE"),
            ({"sop_class": f"{STORAGE}88.33", "PixelData": None}, "SR"),
        )
    ):
        path = write(tmp_path / f"{number}.dcm", zeros, syntax=PLAIN, **facts)
        if syntax != PLAIN:
            dataset = pydicom.dcmread(path)
            dataset.file_meta.TransferSyntaxUID = syntax
            dataset.save_as(path, enforce_file_format=True)
        with pytest.raises(
            InputError, match=rf"{number}.dcm: is a DICOM {kind}, expected an image: leave it out"
        ):
            decode(path)
