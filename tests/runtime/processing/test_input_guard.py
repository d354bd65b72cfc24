from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tumorseg_runtime.conformance.guard_rule import guard_breaches
from tumorseg_runtime.core.errors import BundleError, InputError
from tumorseg_runtime.inference.prediction import Prediction
from tumorseg_runtime.processing.input_guard import (
    FORMAT,
    STATISTICS,
    InputCheck,
    InputGuard,
    KindOfImage,
    statistics,
)

COUNT = len(STATISTICS)
RANDOM = np.random.default_rng(0)


def scan(brightness: float = 90.0, shape: tuple[int, ...] = (200, 300)) -> npt.NDArray[np.uint8]:
    """A bright oval on black with texture."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    oval = ((y / shape[0] - 0.5) ** 2 + (x / shape[1] - 0.5) ** 2) < 0.16
    texture = cv2.GaussianBlur(RANDOM.normal(0, 25, shape[:2]), (5, 5), 2)
    return np.asarray(np.clip((brightness + texture) * oval, 0, 255), np.uint8)


@pytest.fixture(scope="module")
def guard() -> InputGuard:
    values = np.stack([statistics(scan(level))[0] for level in range(70, 110)])
    mean, std = values.mean(axis=0), np.maximum(values.std(axis=0), 0.5)
    whitening = tuple(tuple(row) for row in np.eye(COUNT).tolist())
    kind = KindOfImage("oval", 40, tuple(mean.tolist()), tuple(std.tolist()), whitening, 3.0)
    return InputGuard("0" * 64, 4.0, (kind,))


def test_its_own_kind_passes_and_others_are_flagged_with_a_reason(guard: InputGuard) -> None:
    own = guard.check(scan())
    assert (own.flagged, own.nearest, own.reason) == (False, "oval", None)
    assert own.score < 1
    shape = (200, 300)
    for other in (
        np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8), 255 - scan(),
        RANDOM.integers(0, 256, shape, np.uint8),
    ):  # fmt: skip
        found = guard.check(other)
        assert found.flagged
        assert found.score > 1
        assert found.reason is not None
        assert "times the limit" in found.reason
    tinted = np.stack([scan()] * 3, axis=2)
    assert not guard.check(tinted).flagged
    tinted[..., 0] //= 2
    assert "colours differ" in str(guard.check(tinted).reason)


@pytest.mark.parametrize("shape", [(200, 300), (31, 700), (256, 256), (90, 80, 3), (256, 256, 3)])
def test_it_says_what_its_rule_says(guard: InputGuard, shape: tuple[int, ...]) -> None:
    pixels = RANDOM.integers(0, 200, shape, np.uint8) // 2 + np.uint8(10)
    second = dataclasses.replace(
        guard.kinds[0], name="other", mean=tuple(statistics(pixels)[0].tolist()), limit=1.0,
        whitening=tuple(map(tuple, np.tril(RANDOM.normal(0, 1, (COUNT, COUNT))).tolist())),
    )  # fmt: skip
    both = dataclasses.replace(guard, kinds=(guard.kinds[0], second))
    for one in (guard, both):
        for image in (pixels, np.ascontiguousarray(pixels[::2, 5:])):
            assert guard_breaches(_Judged(image, one, one.check(image))) == []
    right = both.check(pixels)
    for wrong in (
        None, dataclasses.replace(right, score=right.score + 0.01), dataclasses.replace(right, nearest="x"),
        dataclasses.replace(right, flagged=not right.flagged),
    ):  # fmt: skip
        assert guard_breaches(_Judged(pixels, both, wrong)) != []


@dataclasses.dataclass
class _Judged:
    image: npt.NDArray[np.uint8]
    guard: InputGuard | None
    input_check: InputCheck | None


def test_its_file_comes_back_and_a_damaged_one_is_one_line(guard: InputGuard, tmp_path: Path) -> None:
    path = tmp_path / "guard.json"
    path.write_text(guard.to_text(), encoding="utf-8")
    again = FORMAT.read_record(path, InputGuard)
    assert again == guard
    assert again.to_text() == guard.to_text()
    for change in (
        {"kinds": []}, {"most_colour": 0}, {"split_sha256": "x"}, {"schema": 2}, {"extra": 1},
        {"kinds": [{**json.loads(guard.to_text())["kinds"][0], "mean": [1.0]}]},
        {"kinds": [{**json.loads(guard.to_text())["kinds"][0], "limit": 1e300}]},
    ):  # fmt: skip
        path.write_text(json.dumps({**json.loads(guard.to_text()), **change}), encoding="utf-8")
        with pytest.raises(BundleError, match=r"guard\.json") as caught:
            FORMAT.read_record(path, InputGuard)
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(InputError, match="are expected"):
        dataclasses.replace(guard.kinds[0], std=(1.0,))


def test_a_prediction_without_a_guard_has_no_check() -> None:
    assert {field.name: field.default for field in dataclasses.fields(Prediction)}["guard"] is None
