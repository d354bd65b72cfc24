"""Generated DICOM files, read by this package, dcmtk and gdcm: more than 300, of every form that is read.

`dcm2pnm` (dcmtk) shows gray and palette files; `gdcmconv` and dcmtk's encoders compress files whose pixels
are known, and decompress them. Differences that are tolerated, in levels of 0..255:

- 1: dcmtk rounds its results down, and scales a palette's 16 bits by a shift (`v >> 8`, not `v / 257`).
- dcmtk knows no LINEAR_EXACT and applies LINEAR, up to one value beside it: 1 more, and what a value is
  worth.
- A table that says 16 bits and holds fewer is not among them: it fills its own range here (see `tables`), and
  a part of the shown range there.
- Baseline and extended JPEG: 1, the inverse DCT's rounding; 3 in colour, where one level of chroma is
  worth 1.8 of blue.
- HighBit, sign, byte order, RLE, lossless JPEG, JPEG-LS and lossless JPEG 2000: none.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.frames import read_frame

pytest.importorskip("pydicom", reason="pydicom is not installed (extra dicom)")

from pydicom.dataset import Dataset

Array = npt.NDArray[Any]
Write = Callable[..., Path]
Case = tuple[str, Array, dict[str, Any], int]  # name, stored values, elements, tolerated levels

pytestmark = [pytest.mark.slow, pytest.mark.process]
DEPTHS = ((8, 8), (8, 6), (16, 16), (16, 14), (16, 12), (16, 9))
SHAPE = (12, 17)


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (Debian: apt-get install dcmtk libgdcm-tools)")
    return path


def run(*command: object) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (command, done.stderr)


def values(bits: int, allocated: int, *, signed: bool = False, channels: int = 1, seed: int = 0) -> Array:
    """Random values of all bits, the extremes among them."""
    shape = SHAPE if channels == 1 else (*SHAPE, channels)
    drawn = np.random.default_rng(seed).integers(0, 2**bits, shape)
    drawn.flat[:2] = 0, 2**bits - 1
    kind = f"{'int' if signed else 'uint'}{allocated}"
    return np.asarray(drawn - (2 ** (bits - 1) if signed else 0), kind)


def voi_table(first: int, count: int, said: int, held: int, *, packed: bool = False) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [count % 65536, first % 65536, said]
    entries = (np.arange(count) ** 2 * (2**held - 1) // (count - 1) ** 2).astype("<u2")
    item.LUTData = (entries.astype(np.uint8) if packed else entries).tobytes()
    item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "OW"
    return item


def gray_cases() -> Iterator[Case]:
    forms = itertools.product(DEPTHS, (False, True), ("MONOCHROME1", "MONOCHROME2"), ((1, 0), (2, -100)))
    for number, ((allocated, bits), signed, colours, (slope, intercept)) in enumerate(forms):
        stored = values(bits, allocated, signed=signed, seed=number)
        lowest = (-(2 ** (bits - 1)) if signed else 0) * slope + intercept
        span = 2**bits * slope
        facts: dict[str, Any] = {
            "BitsStored": bits, "HighBit": bits - 1, "PhotometricInterpretation": colours,
        }  # fmt: skip
        if (slope, intercept) != (1, 0):
            facts |= {"RescaleSlope": slope, "RescaleIntercept": intercept}
        name = f"{allocated}-{bits}-{'s' if signed else 'u'}-{colours[-1]}-{slope}"
        centre = lowest + span // 2
        for function, width, levels in (
            ("LINEAR", span // 2, 1), ("LINEAR", span // 5, 1), ("SIGMOID", span // 3, 1),
            ("LINEAR_EXACT", span // 2, 2 + 510 // span),
        ):  # fmt: skip
            window = {"WindowCenter": centre, "WindowWidth": width, "VOILUTFunction": function}
            yield f"{name}-{function}-{width}", stored, facts | window, levels
        if span <= 2**16:
            yield f"{name}-voi", stored, facts | {"VOILUTSequence": [voi_table(lowest, span, 8, 8)]}, 1
            packed = voi_table(lowest, span, 8, 8, packed=True)
            yield f"{name}-packed", stored, facts | {"VOILUTSequence": [packed]}, 1
            yield f"{name}-voi12", stored, facts | {"VOILUTSequence": [voi_table(lowest, span, 12, 12)]}, 1


def shown(source: Path, voi: str) -> Array:
    """What dcmtk shows: uint8 (H, W) or (H, W, 3) RGB."""
    target = source.with_suffix(".pnm")
    run(tool("dcm2pnm"), *voi.split(), "+op", source, target)
    pixels = cv2.imread(str(target), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    return pixels if pixels.ndim == 2 else pixels[..., ::-1]


def compare(cases: list[Case], write: Write, folder: Path, voi: str | None = None) -> list[str]:
    """Names and differences of the files whose pixels are not those of dcmtk."""
    wrong = []
    for number, (name, stored, facts, levels) in enumerate(cases):
        path = write(folder / f"{number}.dcm", stored, **facts)
        options = voi if voi is not None else "+Wl 1" if "VOILUTSequence" in facts else "+Wi 1"
        difference = np.abs(read_frame(path).pixels.astype(int) - shown(path, options)).max()
        if difference > levels:
            wrong.append(f"{name}: {difference}")
    return wrong


def test_gray_windows_and_tables_as_dcmtk_shows_them(write: Write, tmp_path: Path) -> None:
    tool("dcm2pnm")
    cases = list(gray_cases())
    assert len(cases) >= 280
    assert compare(cases, write, tmp_path) == []


def palette_cases() -> Iterator[Case]:
    for bits, count, packed in itertools.product((8, 16), (256, 200, 37), (False, True)):
        if packed and bits == 16:
            continue
        drawn = np.random.default_rng(count).integers(0, 2**bits, (3, count)).astype("<u2")
        facts: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
        for name, entries in zip(("Red", "Green", "Blue"), drawn, strict=True):
            data = (entries.astype(np.uint8) if packed else entries).tobytes()
            facts[f"{name}PaletteColorLookupTableDescriptor"] = [count, 0, bits]
            facts[f"{name}PaletteColorLookupTableData"] = data + bytes(len(data) % 2)
        yield f"palette-{bits}-{count}-{packed}", values(8, 8), facts, 1


def high_bit_cases() -> Iterator[Case]:
    for (bits, high), signed in itertools.product(((12, 15), (10, 13), (8, 15), (12, 11)), (False, True)):
        stored = values(bits, 16, signed=signed, seed=high) << (high + 1 - bits)
        overlay = 0 if high == 15 else 2 ** (high + 1)  # a bit above the value, which is no part of it
        window = {"WindowCenter": 0 if signed else 2 ** (bits - 1), "WindowWidth": 2**bits}
        depth = {"BitsStored": bits, "HighBit": high}
        if overlay and not signed:
            stored = stored | np.uint16(overlay)
        yield f"high-{bits}-{high}-{signed}", stored, depth | window, 1


def test_palettes_and_high_bits_as_dcmtk_shows_them(write: Write, tmp_path: Path) -> None:
    tool("dcm2pnm")
    assert compare(list(palette_cases()), write, tmp_path, voi="") == []
    assert compare(list(high_bit_cases()), write, tmp_path) == []


def originals(write: Write, folder: Path) -> Iterator[tuple[str, Path]]:
    """Uncompressed files, by name."""
    for (allocated, bits), signed in itertools.product(((8, 8), (16, 12), (16, 16)), (False, True)):
        if (allocated, signed) == (8, True):
            continue
        stored = values(bits, allocated, signed=signed, seed=bits)
        name = f"{allocated}-{bits}-{'s' if signed else 'u'}"
        yield name, write(folder / f"{name}.dcm", stored, BitsStored=bits, HighBit=bits - 1)
    colour = values(8, 8, channels=3)
    yield "rgb", write(folder / "rgb.dcm", colour)
    planes = {"PlanarConfiguration": 1, "PixelData": colour.transpose(2, 0, 1).tobytes()}
    yield "planes", write(folder / "planes.dcm", colour, **planes)


LOSSLESS = {
    "gdcmconv": ("-J", "-L", "-K", "-R", "-M", "-X"),
    "dcmcjpeg": ("+e1", "+el"),
    "dcmcrle": ("+un",),
    "dcmcjpls": ("+el",),
    "dcmconv": ("+te", "+tb", "+ti", "+td"),
}


def test_lossless_files_hold_what_went_into_them(write: Write, tmp_path: Path) -> None:
    pytest.importorskip("libjpeg", reason="pylibjpeg-libjpeg is not installed (extra dicom-jpeg)")
    wrong, count = [], 0
    for name, source in originals(write, tmp_path):
        expected = read_frame(source).pixels
        for program, option in ((one, two) for one, options in LOSSLESS.items() for two in options):
            if option == "-K" and name in ("rgb", "planes"):
                continue  # gdcm 3.0.21 does not encode these
            target = tmp_path / f"{name}-{program}{option}.dcm"
            run(tool(program), option, source, target)
            count += 1
            if (program, option, name[-2:]) == ("dcmcjpeg", "+el", "-s"):  # predictor 6 of signed values
                with pytest.raises(InputError, match="predictor 6, which encoders compute in two ways"):
                    read_frame(target)
                continue
            if not np.array_equal(read_frame(target).pixels, expected):
                wrong.append(target.name)
    assert wrong == []
    assert count >= 90


def test_lossy_jpeg_as_dcmtk_decodes_it(write: Write, tmp_path: Path) -> None:
    pytest.importorskip("libjpeg", reason="pylibjpeg-libjpeg is not installed (extra dicom-jpeg)")
    smooth = cv2.GaussianBlur(values(12, 16, seed=3).astype(np.float32), (0, 0), 3).astype(np.uint16)
    window = {"WindowCenter": 2048, "WindowWidth": 4096, "BitsStored": 12, "HighBit": 11}
    cases = (
        ("gray", "+eb", (smooth // 16).astype(np.uint8), {}, 1),
        ("rgb", "+eb", np.stack([(smooth // d).astype(np.uint8) for d in (16, 20, 24)], axis=-1), {}, 3),
        ("12-bit", "+ee", smooth, window, 1),
    )
    for name, option, stored, facts, levels in cases:
        source = write(tmp_path / f"{name}.dcm", stored, **facts)
        lossy, plain = tmp_path / f"{name}-lossy.dcm", tmp_path / f"{name}-plain.dcm"
        run(tool("dcmcjpeg"), option, source, lossy)
        run(tool("dcmdjpeg"), lossy, plain)
        found, expected = (read_frame(path).pixels.astype(int) for path in (lossy, plain))
        assert np.abs(found - expected).max() <= levels, name
