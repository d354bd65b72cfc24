"""What a guard flags: images of its own kind that it has not seen, others, and images damaged on purpose."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.progress import Tell, silent, told
from tumorseg_runtime.parity.failures import upper_bound
from tumorseg_runtime.processing.input_guard import InputGuard, statistics
from tumorseg_train.data.datasets import read_pixels
from tumorseg_train.data.split import Item, Manifest
from tumorseg_train.evaluation.predictions import group_of
from tumorseg_train.monitoring.guard_fit import FOLDS, fit_guard, fold_of

OWN = "own"
Pixels = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]


def _saturated(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """So bright that half of what is not black is white."""
    lit = pixels[pixels > 0]
    gain = 255 / max(float(np.median(lit)) if lit.size else 1.0, 1.0)
    return np.asarray(np.minimum(pixels * gain, 255), np.uint8)


DAMAGE: dict[str, Callable[[Pixels, np.random.Generator], Pixels]] = {
    "blank": lambda pixels, random: np.full_like(pixels, random.integers(256)),
    "saturated": _saturated,
    "noise": lambda pixels, random: random.integers(0, 256, pixels.shape, np.uint8),
    "inverted": lambda pixels, random: 255 - pixels,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """Statistics and colours of images as they are (OWN) and damaged, by kind of damage."""

    items: tuple[Item, ...]
    values: Mapping[str, tuple[FloatArray, FloatArray]]

    def guard(self, rows: Sequence[int], split_sha256: str) -> InputGuard:
        """A guard of these images."""
        values, colours = self.values[OWN]
        items, chosen = [self.items[row] for row in rows], list(rows)
        return fit_guard(
            split_sha256,
            values[chosen],
            colours[chosen],
            [one.organ for one in items],
            [*map(group_of, items)],
        )


def measure_all(manifest: Manifest, tell: Tell = silent) -> Measured:
    """Every image of a split, as it is and damaged; the same each time."""
    found: dict[str, list[tuple[FloatArray, float]]] = {name: [] for name in (OWN, *DAMAGE)}
    for number, item in enumerate(told(manifest.items, tell)):
        pixels, random = read_pixels(manifest.root / item.image), np.random.default_rng(number)
        found[OWN].append(statistics(pixels))
        for name, damage in DAMAGE.items():
            found[name].append(statistics(damage(pixels, random)))
    return Measured(
        manifest.items,
        {
            name: (np.stack([values for values, _ in each]), np.array([colour for _, colour in each]))
            for name, each in found.items()
        },
    )


def trial(measured: Measured, split_sha256: str) -> list[dict[str, Any]]:
    """What guards of one organ each, and of all, flag: fitted on the training part and judged on the test
    part, and in turn fitted on all groups but a fifth and judged on that.

    A row: guard (organ, or 'all'), judged ('test' or 'folds'), shown (OWN, a damage, or 'other organs'),
    images, flagged; and of OWN `at_most`, the largest share of false alarms that fits with 95 % confidence,
    as if images were independent.
    """
    items = measured.items
    everything = range(len(items))
    folds = [fold_of(group_of(item)) for item in items]
    turns = [
        ("test", {row for row in everything if items[row].part == "train"},
         {row for row in everything if items[row].part == "test"}),
        *(
            ("folds", {row for row in everything if folds[row] != fold},
             {row for row in everything if folds[row] == fold})
            for fold in range(FOLDS)
        ),
    ]  # fmt: skip
    organs = sorted({item.organ for item in items})
    counts: dict[tuple[str, str, str], list[int]] = {}
    for name in [*organs, *(["all"] if len(organs) > 1 else [])]:
        for judged, fitted, shown in turns:
            own = {row for row in shown if name in (items[row].organ, "all")}
            guard = measured.guard(
                sorted(row for row in fitted if name in (items[row].organ, "all")), split_sha256
            )
            for kind, source, rows in (
                *((kind, kind, own) for kind in measured.values), ("other organs", OWN, shown - own),
            ):  # fmt: skip
                values, colours = measured.values[source]
                count = counts.setdefault((name, judged, kind), [0, 0])
                count[0] += len(rows)
                count[1] += sum(guard.judge(values[row], float(colours[row])).flagged for row in rows)
    return [
        {
            "guard": name,
            "judged": judged,
            "shown": kind,
            "images": images,
            "flagged": flagged,
            "at_most": upper_bound(flagged, images) if kind == OWN else None,
        }
        for (name, judged, kind), (images, flagged) in counts.items()
        if images
    ]
