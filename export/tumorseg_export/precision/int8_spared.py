"""Layers that do few of the multiplications and much of the error stay in floating point, of INT8.

The search (`tumorseg_export.precision.search`) keeps what breaks a budget of single images. Dice over many
images asks for more: an error that moves every border a little breaks no budget, and may still cost the
thousandth that is allowed. In a network of depthwise convolutions the first layers do most of it, above all
the one that reads the image.
"""

from __future__ import annotations

from collections.abc import Sequence

from tumorseg_export.precision.search import Effect

# Standard deviations near the threshold: networks of residual blocks that err by so much keep their Dice.
ENOUGH = 0.05
SPARED = 0.08  # of the network's multiplications, at most


def spared(effects: Sequence[Effect], error: float, multiplications: int) -> list[Effect]:
    """Those that stay: the most squared error for each multiplication first, until what is left would be
    ENOUGH, errors of single layers being independent of each other.

    error: of the whole network in INT8. multiplications: of the whole network.
    """
    everything = sum(effect.error**2 for effect in effects) or 1.0
    left, room, kept = error**2, SPARED * multiplications, []
    for effect in sorted(effects, key=lambda one: -(one.error**2) / max(one.unit.multiplications, 1)):
        if left <= ENOUGH**2:
            break
        if effect.unit.multiplications <= room:
            kept.append(effect)
            room -= effect.unit.multiplications
            left -= error**2 * effect.error**2 / everything
    return kept
