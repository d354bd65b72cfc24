"""How many images failed, and what that says about images that were not tried."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Failures:
    """images: that were compared. failed: those of them that break a budget."""

    images: int
    failed: int

    @classmethod
    def of(cls, images: Iterable[tuple[str, bool]]) -> Failures:
        """images: name, and whether it broke a budget. Each counts once, however often it went through the
        door, and failed where it did so once."""
        broken: dict[str, bool] = {}
        for name, failed in images:
            broken[name] = broken.get(name, False) or failed
        return cls(len(broken), sum(broken.values()))

    @property
    def at_most(self) -> float:
        """Upper bound of the share of failing images, 0..1, with 95 % confidence (Clopper and Pearson)."""
        return upper_bound(self.failed, self.images)

    @property
    def line(self) -> str:
        """For people."""
        return (
            f"{self.failed} of {self.images} failed: at most {self.at_most:.1%} with {CONFIDENCE:.0%} "
            "confidence".replace("%", " %")
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**dataclasses.asdict(self), "at_most": self.at_most, "line": self.line}


def upper_bound(failed: int, count: int, confidence: float = CONFIDENCE) -> float:
    """One-sided Clopper-Pearson bound: the largest share of failures under which `failed` or fewer of `count`
    still have a probability of 1 - confidence."""
    if failed >= count:
        return 1.0
    low, high = failed / count, 1.0
    for _ in range(60):  # the probability falls as the share grows
        middle = (low + high) / 2
        low, high = (middle, high) if _probability(failed, count, middle) > 1 - confidence else (low, middle)
    return high


def _probability(failed: int, count: int, share: float) -> float:
    """That at most `failed` of `count` fail, each with this probability, 0 < share < 1."""
    return (
        math.fsum(
            math.comb(count, k) * math.exp(k * math.log(share) + (count - k) * math.log1p(-share))
            for k in range(failed + 1)
        )
        if share < 1
        else 0.0
    )
