"""The golden vectors' hashes, computed anew from their pixels by the rule in plain integers."""

from __future__ import annotations

import dataclasses
import json
import os
from fractions import Fraction
from itertools import permutations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tumorseg_runtime.conformance.files import EXPECTED, Vector, digest, expected_digests, vectors
from tumorseg_runtime.conformance.scenes import COLOURS, YBR, colour_scene, scene
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.images.frames import read_frames
from tumorseg_runtime.processing.preprocess import Preprocessor, resize

UInt8Array = npt.NDArray[np.uint8]
BY_NAME = {vector.name: vector for vector in vectors()}


def half_to_even(value: Fraction) -> int:
    return round(value)  # Python rounds fractions half to even


def slow_taps(n_in: int, n_out: int) -> list[tuple[int, int, int]]:
    taps = []
    for i in range(n_out):
        # in float64, as the rule says, then exact
        position = Fraction((i + 0.5) * (1 / (n_out / n_in)) - 0.5)
        first = position.numerator // position.denominator
        weight = half_to_even((position - first) * 256)
        if first < 0 or first >= n_in - 1:
            weight = 0
        taps.append((min(max(first, 0), n_in - 1), min(max(first + 1, 0), n_in - 1), weight))
    return taps


def slow_resize(plane: UInt8Array, height: int, width: int) -> UInt8Array:
    values = plane.astype(int)
    across, down = slow_taps(plane.shape[1], width), slow_taps(plane.shape[0], height)
    out = np.empty((height, width), np.uint8)
    for y, (y0, y1, wy) in enumerate(down):
        for x, (x0, x1, wx) in enumerate(across):
            above = values[y0, x0] * (256 - wx) + values[y0, x1] * wx
            below = values[y1, x0] * (256 - wx) + values[y1, x1] * wx
            out[y, x] = (above * (256 - wy) + below * wy + 32768) >> 16
    return out


def slow_expected(vector: Vector) -> dict[str, str]:
    found = {"pixels": digest(vector.pixels)}
    found |= {f"pixels[{place}]": digest(frame) for place, frame in enumerate(vector.frames) if place}
    for name, contract in vector.contracts.items():
        size = contract.height, contract.width
        planes = [vector.pixels] if vector.pixels.ndim == 2 else list(vector.pixels.transpose(2, 0, 1))
        resized = planes if planes[0].shape == size else [slow_resize(plane, *size) for plane in planes]
        tensor = np.empty((contract.channels, *size), np.float32)
        for channel in range(contract.channels):
            plane = resized[channel % len(resized)]
            mean, std = np.float32(contract.mean[channel]), np.float32(contract.std[channel])
            table = [(np.float32(v) / np.float32(255) - mean) / std for v in range(256)]
            tensor[channel] = np.array(table, np.float32)[plane]
        found[f"{name} resized"] = digest(
            resized[0] if vector.pixels.ndim == 2 else np.stack(resized, axis=2)
        )
        found[f"{name} tensor"] = digest(tensor)
    return found


def test_the_hashes_in_the_repository() -> None:
    found = {vector.name: slow_expected(vector) for vector in vectors()}
    if os.environ.get("TUMORSEG_WRITE_VECTORS"):
        EXPECTED.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        pytest.fail("written: run again without TUMORSEG_WRITE_VECTORS")
    assert found == expected_digests()


@pytest.mark.parametrize("name", BY_NAME)
def test_reading_and_preprocessing_give_them(name: str, tmp_path: Path) -> None:
    vector, expected = BY_NAME[name], expected_digests()[name]
    if vector.dicom:
        pytest.importorskip("pydicom")
    path = tmp_path / name
    path.write_bytes(vector.data)
    frames = list(read_frames(path))
    assert len(frames) == len(vector.frames)
    for place, (frame, pixels) in enumerate(zip(frames, vector.frames, strict=True)):
        np.testing.assert_array_equal(frame.pixels, pixels)
        assert digest(frame.pixels) == expected[f"pixels[{place}]" if place else "pixels"]
        assert frame.spacings == vector.spacings
    pixels = frames[0].pixels
    for contract_name, contract in vector.contracts.items():
        assert digest(resize(pixels, contract.height, contract.width)) == expected[f"{contract_name} resized"]
        assert digest(Preprocessor(contract)(pixels)) == expected[f"{contract_name} tensor"]


def test_every_kind_that_was_promised_is_there() -> None:
    shapes = {name: vector.pixels.shape for name, vector in BY_NAME.items()}
    assert len(shapes) == len(vectors()) == 93
    assert shapes["wide-rgb.png"] == (23, 157, 3)
    assert shapes["1x1-gray.png"] == (1, 1)
    assert shapes["2000x3000-gray.tif"] == (2000, 3000)
    stored = shapes["exif-1.jpg"]
    assert shapes["exif-6.jpg"] == (stored[1], stored[0]) != stored
    assert shapes["near-gray-rgb.png"][2] == 3
    same = [v.name for v in vectors() if v.pixels.shape[:2] in ((64, 96), (96, 32))]
    assert same == [
        "network-size-rgb.png", "network-size-gray.png", "network-size-narrow.png", "near-gray-rgb.png",
    ]  # fmt: skip
    assert sum(vector.dicom for vector in vectors()) == 33
    assert {len(vector.frames) for vector in vectors()} == {1, 2, 3}
    assert {spacing.source for vector in vectors() for spacing in vector.spacings} == {
        "PixelSpacing", "ImagerPixelSpacing", "SequenceOfUltrasoundRegions",
    }  # fmt: skip


def test_scenes_change_with_every_flip_and_swap() -> None:
    gray, colour = scene(64, 96), colour_scene(64, 96)
    turned = [gray, gray[::-1], gray[:, ::-1], gray[::-1, ::-1]]
    turned += [part.swapaxes(0, 1).copy().reshape(64, 96) for part in turned]
    assert len({digest(one > 170) for one in turned}) == 8
    corners = [gray[:4, :4], gray[:4, -4:], gray[-4:, :4], gray[-4:, -4:]]
    assert len({int(one.max()) for one in corners}) == 4
    orders = [colour[..., list(order)].astype(int) for order in permutations(range(3))]
    warm = [digest(one[..., 0] - one[..., 2] > 76) for one in orders]
    assert warm[0] not in warm[1:]


def test_colours_survive_the_way_to_ycbcr_and_back() -> None:
    def near_half(value: Fraction) -> bool:
        return abs(value % 1 - Fraction(1, 2)) < Fraction(1, 50)

    halved = [(int(y) + 45, int(y) - 13, int(y) - 50) for y in np.unique(scene(13, 16) // 2 + 80)]
    known = [tuple(map(int, one)) for one in YBR] + [((2 * r - 90) // 2, 100, 160) for r, _, _ in halved]
    for (r, g, b), ybr in zip([*COLOURS.astype(int).tolist(), *halved], known, strict=True):
        there = (
            Fraction(299 * r + 587 * g + 114 * b, 1000),
            128 + Fraction(-168736 * r - 331264 * g + 500000 * b, 10**6),
            128 + Fraction(500000 * r - 418688 * g - 81312 * b, 10**6),
        )
        y, cb, cr = ybr
        back = (
            y + Fraction(1402, 1000) * (cr - 128),
            y - Fraction(344136, 10**6) * (cb - 128) - Fraction(714136, 10**6) * (cr - 128),
            y + Fraction(1772, 1000) * (cb - 128),
        )
        assert not any(map(near_half, (*there, *back)))
        assert tuple(map(half_to_even, there)) == ybr
        assert tuple(map(half_to_even, back)) == (r, g, b)


def test_a_digest_tells_dtype_shape_and_every_bit_apart() -> None:
    zeros = np.zeros((2, 3), np.float32)
    digests = [digest(a) for a in (zeros, -zeros, zeros.T, zeros.astype(np.float64), zeros.view(np.int32))]
    assert len(set(digests)) == 5
    assert digest(zeros.astype(">f4")) == digest(zeros)


def test_contracts_are_by_colour() -> None:
    colour, gray = BY_NAME["wide-rgb.png"], BY_NAME["tall-gray.png"]
    assert set(colour.contracts) == {"rgb"}
    assert set(gray.contracts) == {"rgb", "gray"}
    assert all(isinstance(contract, Contract) for contract in gray.contracts.values())
    assert not dataclasses.replace(gray, name="a.png").dicom
