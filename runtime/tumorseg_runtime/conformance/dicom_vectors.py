"""Conformance files in DICOM: every photometric interpretation, window, table and spacing that is read."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.conformance.dicom_format import DEFLATED, IMPLICIT, RLE, Element, encode_dicom
from tumorseg_runtime.conformance.integer_rules import by_extremes, by_sigmoid, by_window, rounded
from tumorseg_runtime.conformance.scenes import COLOURS, YBR, colour_scene, labels, noise, scene
from tumorseg_runtime.conformance.vector import Vector
from tumorseg_runtime.images.frame import Spacing

_SPACING = 0x00280030


def dicom_vectors() -> list[Vector]:
    """All of them; reading them needs the extra `dicom`."""
    return [*_gray(), *_colour(), *_spacings(), *_frames(), *_syntaxes()]


def _gray() -> list[Vector]:
    gray, tall = scene(95, 71, 1), noise(211, 37)
    deep = scene(61, 85).astype(np.uint16) * 16 + (noise(61, 85) & 15)  # 12 bits
    signed = deep.astype(np.int16) - 1100
    six = gray // 4
    padded = deep.copy()
    padded[:, :9] = 0
    table = (np.arange(4096) ** 2 // 300).astype(np.uint16)
    bytes_of = table.astype("<u2").tobytes()
    lut: list[Element] = [(0x00283002, "US", [4096, 0, 16]), (0x00283006, "OW", [bytes_of])]
    units = deep.astype(np.int64) * 2 - 1024
    slope = _rescale(2, -1024)
    # Padding is left out of the extremes, and becomes 0.
    inside = np.where(padded > 0, by_extremes(np.maximum(padded, padded[padded > 0].min())), 0)
    return [
        _vector("monochrome2", gray, gray),
        _vector("monochrome1", tall, 255 - tall, photometric="MONOCHROME1"),
        _vector(
            "monochrome1-12-bit", deep, 255 - by_window(deep, 2048, 3001), _window(2048, 3001),
            photometric="MONOCHROME1", bits=12,
        ),
        _vector("12-bit", deep, by_extremes(deep), bits=12),
        _vector("6-bit", six, rounded(six.astype(np.int64) * 255, 63), bits=6),
        _vector("signed", signed, by_extremes(signed)),
        _vector("signed-window", signed, by_window(signed, 300, 3300), _window(300, 3300)),
        _vector("window-linear-exact", deep, by_window(deep, 1900, 3401, exact=True),
                _window(1900, 3401, "LINEAR_EXACT"), bits=12),
        _vector("window-sigmoid", deep, by_sigmoid(deep, 1800, 2900),
                _window(1800, 2900, "SIGMOID"), bits=12),
        _vector("rescaled", deep, by_window(units, 2400, 6001), [*slope, *_window(2400, 6001)], bits=12),
        _vector("rescaled-negative", gray, by_extremes(255 - gray), _rescale(-0.5, 100)),
        _vector("modality-lut", deep, by_window(table[deep].astype(np.int64), 20000, 36001),
                [(0x00283000, "SQ", [[*lut, (0x00283004, "LO", ["US"])]]), *_window(20000, 36001)], bits=12),
        _vector("voi-lut", deep, rounded(table[deep].astype(np.int64) * 255, 65535),
                [(0x00283010, "SQ", [lut])], bits=12),
        _vector("padded", padded, inside.astype(np.uint8), [(0x00280120, "US", [0])], bits=12),
    ]  # fmt: skip


def _colour() -> list[Vector]:
    colour, shapes, pairs = colour_scene(72, 98, 1), labels(66, 90), np.repeat(labels(66, 45), 2, axis=1)
    deep = colour.astype(np.uint16) * 190 + 77
    entries = [struct.pack(f"<{len(COLOURS)}H", *(COLOURS[:, one].astype(int) * 257)) for one in range(3)]
    palette: list[Element] = [
        element
        for one, data in enumerate(entries)
        for element in (
            (0x00281101 + one, "US", [len(COLOURS), 0, 16]),
            (0x00281201 + one, "OW", [data]),
        )
    ]
    return [
        _vector("rgb", colour, colour, photometric="RGB"),
        _vector("rgb-by-plane", colour, colour, photometric="RGB", planar=True),
        _vector("rgb-16-bit", deep, by_extremes(deep), photometric="RGB"),
        _vector("ybr-full", YBR[shapes], COLOURS[shapes], photometric="YBR_FULL"),
        _vector("ybr-full-422", YBR[pairs], COLOURS[pairs], photometric="YBR_FULL_422"),
        _vector("palette-color", shapes, COLOURS[shapes], palette, photometric="PALETTE COLOR"),
    ]


def _spacings() -> list[Vector]:
    gray, colour = scene(88, 64, 3), colour_scene(120, 160, 3)
    deep = scene(1500, 1030, 3).astype(np.uint16) * 13
    left, right = (10, 20, 59, 99), (80, 20, 149, 109)
    regions = [_region(left, 0.03125, 0.0625), _region(right, 0.015625, 0.015625)]
    return [
        _vector(
            "spacing-square", gray, gray, [(_SPACING, "DS", [0.5, 0.5])],
            spacings=(Spacing(0.5, 0.5, "PixelSpacing"),),
        ),
        _vector(
            "spacing-not-square", gray, gray, [(_SPACING, "DS", [0.75, 0.3])],
            spacings=(Spacing(0.75, 0.3, "PixelSpacing"),),
        ),
        _vector(
            "spacing-at-the-detector", gray, gray, [(0x00181164, "DS", [0.2, 0.1])],
            spacings=(Spacing(0.2, 0.1, "ImagerPixelSpacing"),),
        ),
        _vector(
            "large-12-bit", deep, by_extremes(deep), [(_SPACING, "DS", [0.14, 0.2])], bits=12,
            spacings=(Spacing(0.14, 0.2, "PixelSpacing"),),
        ),
        _vector(
            "ultrasound", colour, colour, [(0x00186011, "SQ", regions)], photometric="RGB",
            spacings=(
                Spacing(0.625, 0.3125, "SequenceOfUltrasoundRegions", (10, 20, 50, 80)),
                Spacing(0.15625, 0.15625, "SequenceOfUltrasoundRegions", (80, 20, 70, 90)),
            ),
        ),
    ]  # fmt: skip


def _frames() -> list[Vector]:
    gray = np.stack([scene(70, 54, 1), scene(70, 54, 2)[::-1], scene(70, 54, 3)[:, ::-1]])
    colour = np.stack([colour_scene(46, 62, 1), colour_scene(46, 62, 2)[::-1]])
    deep = gray.astype(np.uint16) * 14
    windows = [(1800, 3401), (2000, 3001), (1500, 3701)]
    groups = [[(0x00289132, "SQ", [_window(*one)])] for one in windows]
    measures = [[(0x00289110, "SQ", [[(_SPACING, "DS", [0.9, 0.4])]])]]
    enhanced: list[Element] = [(0x52009229, "SQ", measures), (0x52009230, "SQ", groups)]
    return [
        _vector("frames", gray, gray, frames=True),
        _vector("frames-rgb", colour, colour, frames=True, photometric="RGB"),
        _vector(
            "frames-with-own-windows", deep,
            np.stack([by_window(one, *window) for one, window in zip(deep, windows, strict=True)]),
            enhanced, frames=True, bits=12, spacings=(Spacing(0.9, 0.4, "PixelSpacing"),),
        ),
    ]  # fmt: skip


def _syntaxes() -> list[Vector]:
    gray, colour = scene(53, 67, 5), np.stack([colour_scene(39, 51, 4), colour_scene(39, 51, 5)[:, ::-1]])
    deep = scene(44, 150, 6).astype(np.uint16) * 15 + 3
    dot = noise(1, 1, start=4)
    return [
        _vector("1x1", dot, dot),
        _vector("implicit", gray, gray, syntax=IMPLICIT),
        _vector("deflated", gray, gray, syntax=DEFLATED),
        _vector("run-length-12-bit", deep, by_extremes(deep), bits=12, syntax=RLE),
        _vector("run-length-frames-rgb", colour, colour, frames=True, photometric="RGB", syntax=RLE),
    ]


def _vector(
    name: str,
    stored: npt.NDArray[Any],
    shown: npt.NDArray[np.uint8],
    more: list[Element] | None = None,
    *,
    frames: bool = False,
    spacings: tuple[Spacing, ...] = (),
    photometric: str = "MONOCHROME2",
    **form: Any,
) -> Vector:
    """shown: what reading must give, behind an axis of frames as `stored`. form: for `encode_dicom`."""
    data = encode_dicom(stored, photometric, more or (), frames=frames, **form)
    return Vector(f"{name}.dcm", data, tuple(shown) if frames else (shown,), spacings)


def _window(centre: int, width: int, function: str | None = None) -> list[Element]:
    named: list[Element] = [(0x00281056, "CS", [function])] if function else []
    return [(0x00281050, "DS", [centre]), (0x00281051, "DS", [width]), *named]


def _rescale(slope: float, intercept: float) -> list[Element]:
    return [(0x00281052, "DS", [intercept]), (0x00281053, "DS", [slope])]


def _region(box: tuple[int, int, int, int], across_cm: float, down_cm: float) -> list[Element]:
    """A region of tissue in two dimensions; box: left, top, right, bottom, all inside."""
    corners: list[Element] = [(0x00186018 + 2 * place, "UL", [value]) for place, value in enumerate(box)]
    return [
        (0x00186012, "US", [1]), (0x00186014, "US", [1]), (0x00186016, "UL", [0]), *corners,
        (0x00186024, "US", [3]), (0x00186026, "US", [3]),
        (0x0018602C, "FD", [across_cm]), (0x0018602E, "FD", [down_cm]),
    ]  # fmt: skip
