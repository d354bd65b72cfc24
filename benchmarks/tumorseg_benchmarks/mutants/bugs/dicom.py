"""Bugs of reading DICOM files: pixels, windows, frames and the distance between pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from tumorseg_benchmarks.mutants.bugs.images import swapped
from tumorseg_benchmarks.mutants.mutant import Apply, Mutant, patched
from tumorseg_runtime.images import frames
from tumorseg_runtime.images.dicom import lookup_tables, spacing
from tumorseg_runtime.images.dicom import read as dicom
from tumorseg_runtime.images.frame import Spacing

UInt8Array = npt.NDArray[np.uint8]
READ = "tumorseg_runtime.images.dicom.read"

_to_pixels, _spacings = dicom._to_pixels, spacing.spacings_of  # before anything is broken
_window, _by_table = lookup_tables.window, lookup_tables._by_table
_read_frames = frames.read_frames


def dicom_pixels(colours: str, change: Callable[[UInt8Array], UInt8Array]) -> Apply:
    """Other pixels of DICOM files of one photometric interpretation."""

    def to_pixels(stored: Any, dataset: Any, index: int, *span: Any) -> UInt8Array:
        found = _to_pixels(stored, dataset, index, *span)
        return np.ascontiguousarray(change(found)) if dataset.PhotometricInterpretation == colours else found

    return patched((f"{READ}._to_pixels", to_pixels))


def dicom_where(test: Callable[[Any], bool], change: Callable[[UInt8Array], UInt8Array]) -> Apply:
    """Other pixels of the DICOM files that a test on their header picks."""

    def to_pixels(stored: Any, dataset: Any, index: int, *span: Any) -> UInt8Array:
        found = _to_pixels(stored, dataset, index, *span)
        return np.ascontiguousarray(change(found)) if test(dataset) else found

    return patched((f"{READ}._to_pixels", to_pixels))


def spaced(change: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> Apply:
    """Other distances between the pixels of DICOM files."""
    return patched((f"{READ}._spacings", lambda dataset, index: change(_spacings(dataset, index))))


def transposed(spacings: tuple[Any, ...]) -> tuple[Any, ...]:
    """Rows for columns."""
    return tuple(dataclasses.replace(one, row_mm=one.column_mm, column_mm=one.row_mm) for one in spacings)


def everywhere(spacings: tuple[Any, ...]) -> tuple[Any, ...]:
    """The first region's spacing for the whole image."""
    return tuple(dataclasses.replace(one, box=None) for one in spacings[:1])


def unscaled(stored: Any, dataset: Any, index: int) -> Any:
    """Slope and intercept ignored."""
    return stored.astype(np.float64), False


def repeated(place: int) -> Apply:
    """Every frame of a file is one of them, or its last where it has fewer."""

    def read_frames(path: Any) -> Any:
        found = list(_read_frames(path))
        one = found[min(place, len(found) - 1)]
        yield from (dataclasses.replace(frame, pixels=one.pixels) for frame in found)

    return patched(("tumorseg_runtime.inference.stream.read_frames", read_frames))


def stored_as(change: Callable[[Any, Any], Any]) -> Apply:
    """Other stored values: change(stored, header)."""

    def to_pixels(stored: Any, dataset: Any, index: int, *span: Any) -> UInt8Array:
        return _to_pixels(change(stored, dataset), dataset, index, *span)

    return patched((f"{READ}._to_pixels", to_pixels))


def table(name: str, other: Any) -> Apply:
    """Another function of the lookup tables."""
    return patched((f"tumorseg_runtime.images.dicom.lookup_tables.{name}", other))


def by_extremes(values: Any, centre: float, width: float, function: str) -> Any:
    """The window ignored: from the smallest value to the largest."""
    low, high = values.min(), values.max()
    return (values - low) / max(high - low, 1)


def as_interleaved(pixels: UInt8Array) -> UInt8Array:
    """Planes read as if the colours of each pixel lay together."""
    return pixels.transpose(2, 0, 1).reshape(pixels.shape)


def not_converted(pixels: UInt8Array) -> UInt8Array:
    """Y, Cb, Cr for R, G, B."""
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2YCrCb)[:, :, [0, 2, 1]], np.uint8)


def moved(spacing: Spacing) -> Spacing:
    """Its part of the image begins one column too late."""
    if spacing.box is None:
        return spacing
    left, top, width, height = spacing.box
    return dataclasses.replace(spacing, box=(left + 1, top, width, height))


def stored_only(colours: str) -> Apply:
    """The stored indices, the same in three channels."""

    def to_pixels(stored: Any, dataset: Any, index: int, *span: Any) -> UInt8Array:
        if dataset.PhotometricInterpretation != colours:
            return _to_pixels(stored, dataset, index, *span)
        return np.repeat(stored.astype(np.uint8)[..., None], 3, axis=2)

    return patched((f"{READ}._to_pixels", to_pixels))


MUTANTS = tuple(
    Mutant(name, "images", apply)
    for name, apply in (
        ("DICOM RGB read as BGR", dicom_pixels("RGB", swapped)),
        ("DICOM YBR read as BGR", dicom_pixels("YBR_FULL", swapped)),
        ("DICOM palette read as BGR", dicom_pixels("PALETTE COLOR", swapped)),
        ("DICOM MONOCHROME2 inverted", dicom_pixels("MONOCHROME2", lambda p: 255 - p)),
        ("signed DICOM inverted", dicom_where(lambda d: d.PixelRepresentation == 1, lambda p: 255 - p)),
        (
            "DICOM slope and intercept ignored",
            patched(("tumorseg_runtime.images.dicom.lookup_tables._rescale", unscaled)),
        ),
        (
            "DICOM window twice as wide",
            patched(
                (
                    "tumorseg_runtime.images.dicom.lookup_tables.window",
                    lambda values, centre, width, function: _window(values, centre, 2 * width, function),
                )
            ),
        ),
        (
            "DICOM window always linear",
            patched(
                (
                    "tumorseg_runtime.images.dicom.lookup_tables.window",
                    lambda values, centre, width, function: _window(values, centre, width, "LINEAR"),
                )
            ),
        ),
        (
            "DICOM VOI table reversed",
            patched(
                (
                    "tumorseg_runtime.images.dicom.lookup_tables._by_table",
                    lambda *given: (_by_table(*given)[1] - _by_table(*given)[0], _by_table(*given)[1]),
                )
            ),
        ),
        ("DICOM: the first frame for all", repeated(0)),
        ("DICOM: the second frame for all", repeated(1)),
        ("DICOM spacing transposed", spaced(transposed)),
        ("DICOM spacing of the first region everywhere", spaced(everywhere)),
        ("DICOM spacing lost", spaced(lambda spacings: ())),
        (
            "DICOM colours by plane read as interleaved",
            dicom_where(lambda d: d.get("PlanarConfiguration") == 1, as_interleaved),
        ),
        ("DICOM YBR_FULL not converted", dicom_pixels("YBR_FULL", not_converted)),
        ("DICOM YBR_FULL_422 not converted", dicom_pixels("YBR_FULL_422", not_converted)),
        (
            "DICOM sign bit taken for a value",
            stored_as(lambda s, d: s.view(np.uint16) if s.dtype == np.int16 else s),
        ),
        (
            "DICOM above 8 bits cut to 8",
            stored_as(lambda s, d: s & 255 if d.BitsStored > 8 else s),
        ),
        ("DICOM window ignored", table("window", by_extremes)),
        ("DICOM window off by half a value", table("window", lambda v, c, w, f: _window(v + 4, c, w, f))),
        ("DICOM VOI table ignored", table("_by_table", lambda v, voi, signed: (v, float(v.max())))),
        (
            "DICOM padding taken for tissue",
            table("_padding", lambda stored, dataset: np.zeros(stored.shape, np.bool_)),
        ),
        (
            "DICOM palette: indices for colours",
            stored_only("PALETTE COLOR"),
        ),
        (
            "DICOM spacing of the detector lost",
            spaced(lambda found: tuple(one for one in found if one.source != "ImagerPixelSpacing")),
        ),
        (
            "DICOM region one pixel too far right",
            spaced(lambda found: tuple(moved(one) for one in found)),
        ),
    )
)
