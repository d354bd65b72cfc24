"""Bugs of what a device watches: the temperature of its probabilities, and the guard of its input."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_benchmarks.mutants.bugs.postprocess import CLOSE, SEGMENTER, decided_by
from tumorseg_benchmarks.mutants.mutant import Apply, Mutant, patched
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.processing.input_guard import FloatArray, InputCheck, InputGuard, read_guard, statistics
from tumorseg_runtime.processing.postprocess import close_share, masks_from_logits, probabilities

UInt8Array = npt.NDArray[np.uint8]
GUARD = "tumorseg_runtime.processing.input_guard"
_judge = InputGuard.judge


def reported_at(temperature: Callable[[float], float]) -> Apply:
    """The probability map at another temperature."""

    def other(
        logits: npt.NDArray[np.float32], contract: Contract, height: int, width: int
    ) -> npt.NDArray[np.float32]:
        changed = dataclasses.replace(contract, temperature=temperature(contract.temperature))
        return probabilities(logits, changed, height, width)

    return patched(("tumorseg_runtime.inference.prediction.probabilities", other))


def divided(logits: npt.NDArray[np.float32], contract: Contract) -> npt.NDArray[np.float32]:
    """What only the probabilities should see."""
    return logits / np.float32(contract.temperature)


def behind_the_sigmoid(
    logits: npt.NDArray[np.float32], contract: Contract, height: int, width: int
) -> npt.NDArray[np.float32]:
    """Probabilities are divided, and not logits."""
    plain = dataclasses.replace(contract, temperature=1.0)
    return probabilities(logits, plain, height, width) / np.float32(contract.temperature)


def seen_as(change: Callable[[UInt8Array], UInt8Array]) -> Apply:
    """The guard's statistics are those of another image."""
    return patched((f"{GUARD}.statistics", lambda pixels: statistics(np.ascontiguousarray(change(pixels)))))


def measured(change: Callable[[FloatArray, float], tuple[FloatArray, float]]) -> Apply:
    """Other statistics."""
    return patched((f"{GUARD}.statistics", lambda pixels: change(*statistics(pixels))))


def judged(change: Callable[[InputGuard, FloatArray, float], InputCheck]) -> Apply:
    """Another judgement."""
    return patched((f"{GUARD}.InputGuard.judge", change))


def kept(change: Callable[[InputGuard], InputGuard | None]) -> Apply:
    """Another guard than the bundle's."""

    def read(bundle: Any) -> InputGuard | None:
        guard = read_guard(bundle)
        return None if guard is None else change(guard)

    return patched((f"{SEGMENTER}.read_guard", read))


def wider(guard: InputGuard) -> InputGuard:
    """Limits twice as wide."""
    kinds = tuple(dataclasses.replace(kind, limit=2 * kind.limit) for kind in guard.kinds)
    return dataclasses.replace(guard, kinds=kinds)


def never(guard: InputGuard, values: FloatArray, colour: float) -> InputCheck:
    """Nothing is flagged, whatever the score."""
    return dataclasses.replace(_judge(guard, values, colour), flagged=False, reason=None)


def always(guard: InputGuard, values: FloatArray, colour: float) -> InputCheck:
    """Everything is flagged."""
    found = _judge(guard, values, colour)
    return dataclasses.replace(found, flagged=True, reason=found.reason or "unlike the training images")


def first_kind(guard: InputGuard, values: FloatArray, colour: float) -> InputCheck:
    """Each image is held against the first kind alone."""
    return _judge(dataclasses.replace(guard, kinds=guard.kinds[:1]), values, colour)


def uncorrelated(guard: InputGuard, values: FloatArray, colour: float) -> InputCheck:
    """The whitening is left out."""
    eye = tuple(map(tuple, np.eye(len(values)).tolist()))
    kinds = tuple(dataclasses.replace(kind, whitening=eye) for kind in guard.kinds)
    return _judge(dataclasses.replace(guard, kinds=kinds), values, colour)


def of_the_image_before() -> Apply:
    """Each image is given the statistics of the one before it."""
    before: list[tuple[FloatArray, float]] = []

    def stale(values: FloatArray, colour: float) -> tuple[FloatArray, float]:
        before.append((values, colour))
        return before[0] if len(before) == 1 else before.pop(0)

    return measured(stale)


MUTANTS = tuple(
    Mutant(name, "watch", apply)
    for name, apply in (
        ("temperature left out of the probability map", reported_at(lambda _: 1.0)),
        ("temperature squared", reported_at(lambda value: value**2)),
        ("logits times the temperature", reported_at(lambda value: 1 / value)),
        ("temperature rounded to a whole number", reported_at(lambda value: float(round(value)))),
        (
            "temperature behind the sigmoid",
            patched(("tumorseg_runtime.inference.prediction.probabilities", behind_the_sigmoid)),
        ),
        (
            "temperature applied to masks",
            decided_by(
                lambda logits, contract, *size: masks_from_logits(divided(logits, contract), contract, *size)
            ),
        ),
        (
            "temperature applied to the margin",
            patched(
                (
                    CLOSE,
                    lambda logits, contract, *more: close_share(divided(logits, contract), contract, *more),
                )
            ),
        ),
        ("input guard left out", kept(lambda guard: None)),
        ("input guard with limits twice as wide", kept(wider)),
        ("input guard never flags", judged(never)),
        ("input guard flags everything", judged(always)),
        ("input guard of the first kind alone", judged(first_kind)),
        ("input guard without its whitening", judged(uncorrelated)),
        ("input guard blind to colour", measured(lambda values, colour: (values, 0.0))),
        (
            "input guard of the first channel",
            seen_as(lambda pixels: pixels[..., 0] if pixels.ndim == 3 else pixels),
        ),
        ("input guard of the image turned", seen_as(lambda pixels: pixels.swapaxes(0, 1))),
        ("input guard of the image upside down", seen_as(lambda pixels: pixels[::-1])),
        ("input guard of the image before", of_the_image_before()),
    )
)
