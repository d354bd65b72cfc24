"""The learning rate by step: a linear climb, then the recipe's schedule down to a thousandth of the peak."""

from __future__ import annotations

import math
from collections.abc import Callable

FLOOR = 1e-3  # share of the peak
SHAPES: dict[str, Callable[[float], float]] = {  # progress 0..1 after the warm-up -> share 1..0 of the fall
    "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,  # Loshchilov & Hutter 2017
    "linear": lambda x: 1 - x,
    "constant": lambda x: 1.0,
}


def factor(step: int, steps: int, warmup: float, schedule: str) -> float:
    """Share of the peak learning rate in step 0 <= step < steps; `warmup`: share of the steps that climb."""
    climb = round(warmup * steps)
    if step < climb:
        return (step + 1) / (climb + 1)
    progress = min(1.0, (step - climb) / max(1, steps - climb - 1))
    return FLOOR + (1 - FLOOR) * SHAPES[schedule](progress)
