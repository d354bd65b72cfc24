"""The header of a NIfTI file (extra `nifti`: nibabel), checked before a voxel is read.

A file is taken where it says without contradiction how its voxels lie in the patient, and its slices are
axial with square pixels: the network was trained on such images, and lesions are measured in mm³. nibabel
itself repairs or guesses some of what is refused here. Extensions, which may hold patient data, and the texts
of a header are never read.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.errors import BackendError, InputError
from tumorseg_runtime.core.reading import state_of
from tumorseg_runtime.images.frame import Spacing
from tumorseg_runtime.images.header import MAX_PIXELS
from tumorseg_runtime.images.nifti.stream import reading, told, unreadable

MAX_VOXELS = 2_000_000_000  # as of the frames of a DICOM file; slices are read one at a time
_SIZES = {348: b"n+1\0", 540: b"n+2\0\r\n\x1a\n"}  # of the header, and the mark of a single file
_PAIRS = (b"ni1\0", b"ni2\0")
_KINDS = {"u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"}
_UNKNOWN, _MILLIMETRES = 0, 2  # units; where none is said, all tools take mm
_FURTHEST_START = 2**24  # bytes; extensions lie before the voxels
_SIDES = (0.001, 1000.0)  # mm of a voxel's side, at least and at most
_APART = 0.1  # of a voxel's shortest side: how far the two affines may place a corner apart
_SAME = 1e-3  # relative difference of lengths that are rounded to 32 bits
_SQUARE = 0.01  # relative difference of a pixel's sides
_ANATOMY = ("sagittal", "coronal", "axial")  # slices by the patient's axis that they follow


@dataclasses.dataclass(frozen=True, eq=False)
class Volume:
    """A NIfTI file whose header is sound.

    shape: voxels along each axis as stored, with trailing axes of length 1; the slices follow the third.
    kind: of the stored values, which are `slope` * stored + `intercept`. start: byte of the first voxel.
    affine: float64 (4, 4), voxel indices -> mm to the patient's right, front and head.
    spacing: of a slice as it is shown. swapped, flipped: how a stored slice, rows along the second axis, is
        turned to be shown: rows towards the patient's back, columns to the patient's left.
    header: nibabel's, as stored.
    """

    path: Path
    shape: tuple[int, ...]
    kind: np.dtype[Any]
    slope: float
    intercept: float
    start: int
    affine: npt.NDArray[np.float64]
    spacing: Spacing
    swapped: bool
    flipped: tuple[bool, bool]
    header: Any

    @property
    def slices(self) -> int:
        """How many slices it has."""
        return self.shape[2]

    @property
    def voxel_mm3(self) -> float:
        """The volume of a voxel."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def shown(self, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A stored slice (second axis, first axis) as it is shown, (H, W)."""
        turned = stored.T if self.swapped else stored
        return turned[:: -1 if self.flipped[0] else 1, :: -1 if self.flipped[1] else 1]

    def stored(self, shown: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The way back: (H, W) -> (second axis, first axis)."""
        turned = shown[:: -1 if self.flipped[0] else 1, :: -1 if self.flipped[1] else 1]
        return turned.T if self.swapped else turned

    def grid_problem(self, other: Volume) -> str:
        """Why another volume's voxels are not this one's, without names; '' where they are."""
        if self.shape[:3] != other.shape[:3]:
            return f"has {_sides(other.shape[:3])} voxels, expected {_sides(self.shape[:3])}"
        apart = _apart(self.affine, other.affine, self.shape)
        if apart > _APART * _lengths(self.affine).min():
            return f"lies up to {apart:.3g} mm elsewhere in the patient, expected the same affine"
        return ""


def open_volume(path: Path) -> Volume:
    """The volume of a NIfTI file; raises InputError for one that is not taken, BackendError without nibabel.

    What was read of a file is kept until it changes.
    """
    try:
        state = state_of(path)
    except OSError as error:
        raise unreadable(path, error) from error
    return _open(path, state)


@functools.lru_cache(maxsize=4096)
def _open(path: Path, state: tuple[int, ...]) -> Volume:
    try:
        import nibabel
        from nibabel.spatialimages import HeaderDataError
    except ModuleNotFoundError as error:
        raise BackendError(
            f"{path}: is a NIfTI file and {str(error.name).partition('.')[0]} is not installed, expected the "
            "extra 'nifti': pip install 'tumorseg[nifti]'"
        ) from error
    with reading(path) as file:
        block = file.read(max(_SIZES))
    with told(path):
        sizes = [int.from_bytes(block[:4], order) for order in ("little", "big")]
        size = next((size for size in sizes if size in _SIZES), 0)
        mark = block[4:12] if size == 540 else block[344:348]
        if mark[:4] in _PAIRS:
            raise InputError("is half of a pair (.hdr with .img), expected one .nii or .nii.gz: convert it")
        if not size or mark != _SIZES[size] or len(block) < size:
            raise InputError("has no NIfTI header, expected a .nii or .nii.gz file: copy or convert it again")
        made = nibabel.Nifti1Header if size == 348 else nibabel.Nifti2Header
        header = made(block[:size], endianness="<" if sizes[0] == size else ">", check=False)
        try:
            return _volume(path, header, size)
        except (HeaderDataError, ValueError, OverflowError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"its header is damaged ({reason}): copy or convert the file again") from error


def _volume(path: Path, header: Any, size: int) -> Volume:
    shape = _shape(header)
    kind = _kind(header)
    start = float(header["vox_offset"])
    if not (size + 4 <= start <= _FURTHEST_START and start.is_integer()):
        raise InputError(f"its voxels begin at byte {start:g}, expected {size + 4} or later: copy it again")
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0:  # the standard's word for none
        slope, intercept = 1.0, 0.0
    if not np.isfinite((slope, intercept)).all():
        raise InputError(
            f"its values are scaled by {slope:g} and {intercept:g} (scl_slope, scl_inter), expected numbers: "
            "convert it again"
        )
    affine, source = _affine(header, shape)
    lengths = _lengths(affine)
    order, flips = _orientation(affine)
    swapped = order[0] == 1
    across, down = (1, 0) if swapped else (0, 1)  # the stored axes that columns and rows follow
    if abs(lengths[0] - lengths[1]) > _SQUARE * lengths.min():
        raise InputError(
            f"its pixels are {lengths[across]:.4g} mm wide and {lengths[down]:.4g} mm high, expected square "
            "ones: resample it (nibabel.processing.resample_to_output)"
        )
    return Volume(
        path, shape, kind, slope, intercept, int(start), affine,
        Spacing(float(lengths[down]), float(lengths[across]), source), swapped,
        (flips[down] > 0, flips[across] > 0), header,
    )  # fmt: skip


def _shape(header: Any) -> tuple[int, ...]:
    count = int(header["dim"][0])
    sides = tuple(int(side) for side in header["dim"][1 : count + 1]) if 1 <= count <= 7 else ()
    if not sides or min(sides) < 1:
        raise InputError(f"its header says {count} axes of {_sides(sides)}, expected 3: convert it again")
    if count < 3:
        raise InputError(f"has {count} axes ({_sides(sides)}), expected 3: save the slice as PNG")
    if max(sides[3:], default=1) > 1:
        raise InputError(
            f"has {count} axes ({_sides(sides)}), expected one volume of 3: split it, one file per volume "
            "(nibabel.four_to_three)"
        )
    pixels, voxels = sides[0] * sides[1], sides[0] * sides[1] * sides[2]
    if pixels > MAX_PIXELS or voxels > MAX_VOXELS:
        raise InputError(
            f"has {_sides(sides)} voxels, expected at most {MAX_PIXELS} in one slice and {MAX_VOXELS} in "
            "all: split or resample it"
        )
    return sides


def _kind(header: Any) -> np.dtype[Any]:
    code = int(header["datatype"])
    try:
        kind = header.get_data_dtype()
    except KeyError:  # of nibabel, which knows no such code
        kind = np.dtype("V")
    if kind.str[1:] not in _KINDS:
        what = "colours (RGB)" if kind.names else f"values of datatype {code}"
        raise InputError(f"holds {what}, expected integers or floating point of up to 64 bits: convert it")
    return cast("np.dtype[Any]", kind)


def _affine(header: Any, shape: tuple[int, ...]) -> tuple[npt.NDArray[np.float64], str]:
    """The affine and which of the header's it is; raises InputError for none, and for one that is wrong."""
    unit = int(header["xyzt_units"]) & 7
    if unit not in (_UNKNOWN, _MILLIMETRES):
        raise InputError(f"its lengths have unit {unit}, expected 2, mm: convert it")
    found = {}
    if int(header["sform_code"]) > 0:
        found["sform"] = np.asarray(header.get_sform(), np.float64)
    if int(header["qform_code"]) > 0:
        found["qform"] = np.asarray(header.get_qform(), np.float64)
    if not found:
        raise InputError(
            "does not say how its voxels lie in the patient (sform_code and qform_code are 0), expected an "
            "affine: convert it from the DICOM series again"
        )
    said = np.asarray(header["pixdim"][1:4], np.float64)
    for name, affine in found.items():
        lengths = _lengths(affine)
        if not np.isfinite(affine).all() or not (lengths >= _SIDES[0]).all() or lengths.max() > _SIDES[1]:
            raise InputError(
                f"its {name} makes voxels of {_sides(lengths)} mm, expected {_SIDES[0]} to {_SIDES[1]:g} mm: "
                "convert it from the DICOM series again"
            )
        unit_axes = affine[:3, :3] / lengths
        if np.abs(unit_axes.T @ unit_axes - np.eye(3)).max() > _SQUARE:
            raise InputError(f"the axes of its {name} are not at right angles, expected so: resample it")
        if not np.allclose(lengths, said, rtol=_SAME, atol=0):
            raise InputError(
                f"its {name} makes voxels of {_sides(lengths)} mm, its pixdim says {_sides(said)}, expected "
                "the same: convert it again"
            )
    if len(found) == 2:
        apart = _apart(found["sform"], found["qform"], shape)
        if apart > _APART * said.min():
            raise InputError(
                f"its sform and qform place its voxels up to {apart:.3g} mm apart, expected one place: set "
                "the code of the wrong one to 0"
            )
    name, affine = next(iter(found.items()))
    return affine, name


def _orientation(affine: npt.NDArray[np.float64]) -> tuple[list[int], list[int]]:
    """Of each stored axis: the patient's axis that it follows, and 1 or -1 for its direction."""
    from nibabel.orientations import aff2axcodes, io_orientation

    found = io_orientation(affine)
    order, flips = ([int(value) for value in column] for column in found.T)
    if order[2] != 2:
        codes = "".join(aff2axcodes(affine))
        raise InputError(
            f"is stored in {_ANATOMY[order[2]]} slices (axes {codes}), expected axial ones: store it anew "
            "(nibabel.as_closest_canonical)"
        )
    return order, flips


def _lengths(affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.sqrt((affine[:3, :3] ** 2).sum(axis=0)))


def _apart(first: npt.NDArray[Any], second: npt.NDArray[Any], shape: tuple[int, ...]) -> float:
    """The largest distance in mm between the places that two affines give a corner of the volume."""
    corners = np.array(np.meshgrid(*((0, side - 1) for side in shape[:3]), [1])).reshape(4, -1)
    return float(np.sqrt((((first - second) @ corners)[:3] ** 2).sum(axis=0)).max())


def _sides(sides: Any) -> str:
    return "x".join(f"{side:.6g}" for side in sides)
