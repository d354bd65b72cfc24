"""NIfTI files that are refused: each with one line that says what was got, expected, and what to do."""

from __future__ import annotations

import gzip
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tumorseg_runtime.core.errors import BackendError, InputError
from tumorseg_runtime.images.frames import read_frames

Volume = Callable[..., Path]
VALUES = np.arange(4 * 5 * 3, dtype=np.int16).reshape(4, 5, 3)
TILTED = np.diag((1.0, 1, 3, 1))
TILTED[1, 2] = 1.0  # slices that are shifted against each other, as those of a tilted gantry
RGB = np.zeros((4, 5, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")])
QFORM: dict[str, Any] = {
    "sform_code": 0, "qform_code": 1, "quatern_b": 0, "quatern_c": 0, "quatern_d": 0, "pixdim": [1] * 8,
}  # fmt: skip


def sides(*lengths: int) -> dict[str, Any]:
    """A header's field that says so."""
    return {"dim": [len(lengths), *lengths, *[1] * (7 - len(lengths))]}


def with_nan() -> npt.NDArray[np.float32]:
    values = VALUES.astype(np.float32)
    values[1, 1, 2] = np.nan
    return values


REFUSED: dict[str, tuple[Any, Any, dict[str, Any], str]] = {
    "4-D": (np.zeros((4, 5, 3, 2), np.int16), None, {}, r"has 4 axes \(4x5x3x2\), expected one volume"),
    "2-D": (np.zeros((4, 5), np.int16), None, {}, r"has 2 axes \(4x5\), expected 3"),
    "colour": (RGB, None, {}, r"holds colours \(RGB\), expected integers or floating point"),
    "complex": (VALUES.astype(np.complex64), None, {}, "holds values of datatype 32, expected"),
    "NaN": (with_nan(), None, {}, r"holds NaN or infinity in slice \[2\], expected numbers"),
    "infinite by its scale": (VALUES * 1e290, None, {"scl_slope": 1e30}, "holds NaN or inf"),
    "a range beyond computing": (VALUES * 1e306, None, {}, "expected values less far apart"),
    "scale NaN": (VALUES, None, {"scl_slope": np.nan}, r"scaled by nan and .*scl_slope"),
    "offset infinite": (VALUES, None, {"scl_slope": 1, "scl_inter": np.inf}, "scaled by 1 and inf"),
    "no affine": (VALUES, None, {"sform_code": 0, "qform_code": 0}, r"does not say how its voxels lie"),
    "two affines": (VALUES, None, {"qform_code": 1, "qoffset_x": 4}, "sform and qform .* up to 4 mm"),
    "mirrored qform": (VALUES, None, {"qform_code": 1, "pixdim": [-1] + [1] * 7}, "sform and qform place"),
    "affine NaN": (VALUES, None, {"srow_x": [np.nan, 0, 0, 0]}, "its sform makes voxels of nanx1x1 mm"),
    "affine without depth": (VALUES, None, {"srow_z": [0, 0, 0, 0]}, "its sform makes voxels of 1x1x0 mm"),
    "affine huge": (VALUES, None, {"srow_z": [0, 0, 1e30, 0]}, "its sform makes voxels of 1x1x1e"),
    "sheared": (VALUES, TILTED, {}, "axes of its sform are not at right angles"),
    "pixdim other": (VALUES, None, {"pixdim": [1, 2, 2, 1, 0, 0, 0, 0]}, "its pixdim says 2x2x1"),
    "quaternion too long": (VALUES, None, {**QFORM, "quatern_b": 3}, "its header is damaged"),
    "pixdim negative": (VALUES, None, {**QFORM, "pixdim": [1, -1, 1, 1] + [0] * 4}, "is damaged"),
    "metres": (VALUES, None, {"xyzt_units": 1}, "its lengths have unit 1, expected 2, mm"),
    "oblong pixels": (VALUES, np.diag((0.5, 0.8, 3, 1)), {}, "0.5 mm wide and 0.8 mm high, exp"),
    "sagittal": (VALUES, np.eye(4)[[2, 0, 1, 3]], {}, r"in sagittal slices \(axes ASR\), exp"),
    "coronal": (VALUES, np.eye(4)[[0, 2, 1, 3]], {}, r"in coronal slices \(axes RSA\), expe"),
    "no axes": (VALUES, None, {"dim": [0] * 8}, "its header says 0 axes"),
    "many axes": (VALUES, None, {"dim": [200] + [3] * 7}, "its header says 200 axes"),
    "negative side": (VALUES, None, sides(4, -5, 3), "says 3 axes of 4x-5x3"),
    "huge slice": (VALUES, None, sides(32767, 32767, 1), "32767x32767x1 voxels, expected"),
    "huge": (VALUES, None, sides(9999, 9999, 32767), "x32767 voxels, expected at"),
    "more than there is": (VALUES, None, sides(4, 5, 9), r"is cut off in slice \[3\] of 9"),
    "less than there is": (VALUES, None, sides(4, 5, 2), "holds more values than its header"),
    "unknown kind": (VALUES, None, {"datatype": 77}, "holds values of datatype 77, expected"),
    "no kind": (VALUES, None, {"datatype": 0}, "holds values of datatype 0, expected"),
    "start in the header": (VALUES, None, {"vox_offset": 100}, "begin at byte 100, expected 352"),
    "start NaN": (VALUES, None, {"vox_offset": np.nan}, "begin at byte nan"),
    "start far": (VALUES, None, {"vox_offset": 1e12}, "begin at byte 1e"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, ending: str, volume: Volume, tmp_path: Path) -> None:
    values, affine, fields, message = REFUSED[case]
    path = volume(tmp_path / f"a{ending}", values, affine, **fields)
    with pytest.raises(InputError, match=message) as caught:
        list(read_frames(path))
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert text.count(str(path)) == 1
    assert "\n" not in text
    assert ", expected " in text or "its header is damaged" in text or "copy" in text


def test_damaged_and_foreign_files(volume: Volume, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 999, (40, 40, 9), np.int16)
    whole = volume(tmp_path / "whole.nii.gz", noise).read_bytes()
    plain = gzip.decompress(whole)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    pair = bytearray(plain)
    pair[344:348] = b"ni1\0"
    for name, content, message in (
        ("cut.nii.gz", whole[: len(whole) // 2], "is compressed and damaged or cut off"),
        ("no-end.nii.gz", whole[:-8], "is compressed and damaged or cut off"),
        ("checksum.nii.gz", whole[:-8] + bytes(8), "is compressed and damaged or cut off"),
        ("flipped.nii.gz", bytes(flipped), "is compressed and damaged or cut off"),
        ("cut.nii", plain[:2000], r"is cut off in slice \[0\] of 9"),
        ("header.nii", plain[:300], "has no NIfTI header"),
        ("empty.nii", b"", "has no NIfTI header"),
        ("text.nii.gz", b"no volume at all", "has no NIfTI header"),
        ("pair.nii", bytes(pair), "is half of a pair"),
        ("analyze.nii", struct.pack("<i", 348) + bytes(3000), "has no NIfTI header"),
        ("member.nii.gz", whole + b"more", "damaged or cut off|more values than its header"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(InputError, match=message) as caught:
            list(read_frames(path))
        assert str(caught.value).startswith(f"{path}: "), name
    for name in ("gone.nii", "folder.nii.gz"):
        (tmp_path / "folder.nii.gz").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=f"{name}: cannot be read"):
            list(read_frames(tmp_path / name))


def test_a_small_file_that_unpacks_without_end_is_not_unpacked(volume: Volume, tmp_path: Path) -> None:
    path = volume(tmp_path / "a.nii.gz", VALUES)
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content) + gzip.compress(bytes(2**28)))
    with pytest.raises(InputError, match="holds more values than its header says"):
        list(read_frames(path))


def test_both_affines_that_agree_and_a_trailing_axis_are_taken(volume: Volume, tmp_path: Path) -> None:
    path = volume(tmp_path / "a.nii", VALUES, qform_code=1, qoffset_x=0.01)
    assert len(list(read_frames(path))) == 3
    path = volume(tmp_path / "b.nii", VALUES[..., None])
    assert len(list(read_frames(path))) == 3


def test_without_nibabel_the_extra_is_named(
    volume: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = volume(tmp_path / "a.nii", VALUES)
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(BackendError, match=r"nibabel is not installed.*tumorseg\[nifti\]"):
        list(read_frames(path))
