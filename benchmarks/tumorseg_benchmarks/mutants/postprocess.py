"""Bugs behind the network: what a device makes of logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_benchmarks.mutants.mutant import Apply, Mutant, patched
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.inference.segmenter import Segmenter
from tumorseg_runtime.processing.postprocess import masks_from_logits, probabilities

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]

_infer = Segmenter.infer  # as it is before anything is broken


def decided_by(rule: Any) -> Apply:
    """Another decision: rule(logits (K, h, w), contract, height, width) -> masks."""
    return patched(("tumorseg_runtime.inference.segmenter.masks_from_logits", rule))


def sigmoid_twice(logits: FloatArray, contract: Contract, height: int, width: int) -> BoolArray:
    """The sigmoid of the sigmoid, against the threshold."""
    once = probabilities(logits, height, width)
    return np.asarray(1 / (1 + np.exp(-once)) >= contract.threshold)


def threshold_of_probability(logits: FloatArray, contract: Contract, height: int, width: int) -> BoolArray:
    """Logits against the threshold of probabilities."""
    lowered = logits - np.float32(contract.threshold) + np.float32(contract.logit_threshold)
    return masks_from_logits(lowered, contract, height, width)


def at_network_size(logits: FloatArray, contract: Contract, height: int, width: int) -> BoolArray:
    """Never brought to the image's size."""
    return masks_from_logits(logits, contract, *logits.shape[1:])


def mask_resized(logits: FloatArray, contract: Contract, height: int, width: int) -> BoolArray:
    """Decided at the network's size, then enlarged by nearest neighbours."""
    small = at_network_size(logits, contract, height, width)
    rows, columns = (np.arange(n) * m // n for n, m in zip((height, width), logits.shape[1:], strict=True))
    return small[:, rows][:, :, columns]


def cut(logits: FloatArray, contract: Contract, height: int, width: int) -> BoolArray:
    """One column too far to the right, the last one lost."""
    masks = masks_from_logits(logits, contract, height, width)
    return np.pad(masks[:, :, :-1], ((0, 0), (0, 0), (1, 0)))


def transposed_size(logits: FloatArray, contract: Contract, height: int, width: int) -> BoolArray:
    """Height and width of the image exchanged."""
    return masks_from_logits(logits, contract, width, height)


def out_of_order(
    self: Segmenter, tensors: Sequence[FloatArray], *, timeout_s: float | None = None
) -> FloatArray:
    """The results of a batch in reverse order."""
    return np.ascontiguousarray(_infer(self, tensors, timeout_s=timeout_s)[::-1])


MUTANTS = tuple(
    Mutant(name, "decisions", apply)
    for name, apply in (
        ("double sigmoid", decided_by(sigmoid_twice)),
        ("threshold of probabilities on logits", decided_by(threshold_of_probability)),
        ("mask at the network's size", decided_by(at_network_size)),
        ("mask resized in place of logits", decided_by(mask_resized)),
        ("off-by-one crop of the mask", decided_by(cut)),
        ("mask's height and width exchanged", decided_by(transposed_size)),
        (
            "results of a batch out of order",
            patched(("tumorseg_runtime.inference.segmenter.Segmenter.infer", out_of_order)),
        ),
    )
)
