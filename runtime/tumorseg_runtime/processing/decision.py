"""The decision rule, the only one of the project: which classes a pixel belongs to.

    sigmoid    each class for itself: where its logit reaches the contract's threshold
    softmax    one class or none: the largest logit, where it exceeds the background's, which is 0; of equal
               ones the background comes first, then the classes in their order

A network whose softmax has a background channel is exported with that channel subtracted from the others
(`tumorseg_export.checkpoint.background`): nothing else about softmax needs to be known on a device. Resizing
is linear, and 0 stays 0: logits of either rule are resized alike, and decided then.

The contract's temperature divides logits where probabilities are reported, and nowhere else: it moves no
decision.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.contract import SIGMOID, Contract

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.floating[Any]]


def decide(logits: FloatArray, contract: Contract) -> BoolArray:
    """Logits (K, ...) -> masks (K, ...)."""
    if contract.rule == SIGMOID:
        return np.asarray(logits >= np.float32(contract.logit_threshold))
    winner = np.concatenate([np.zeros_like(logits[:1]), logits]).argmax(axis=0)  # of equal ones the first
    return np.stack([winner == number for number in range(1, len(logits) + 1)])


def distances(logits: FloatArray, contract: Contract) -> FloatArray:
    """How far each logit (K, ...) must move, at least, for a decision to change: negative outside of a mask.

    Against a threshold or the background one logit moves, against another class both may: half of what lies
    between them is enough.
    """
    if contract.rule == SIGMOID:
        return np.asarray(logits - np.float32(contract.logit_threshold))
    rivals = [np.delete(logits, place, axis=0).max(axis=0) for place in range(len(logits))]
    return np.asarray(np.minimum(logits, (logits - np.stack(rivals)) / 2))


def to_probabilities(logits: FloatArray, contract: Contract) -> FloatArray:
    """Sigmoid of each logit, or softmax over them and the background's 0; what is missing to 1 is its own.
    Logits are divided by the contract's temperature first."""
    if contract.temperature != 1:
        logits = logits / np.asarray(contract.temperature, logits.dtype)
    if contract.rule == SIGMOID:
        small = np.exp(-np.abs(logits))  # exp(-x) itself overflows for very negative x
        return np.asarray(np.where(logits >= 0, 1, small) / (1 + small))
    largest = np.maximum(logits.max(axis=0), 0)
    shares = np.exp(logits - largest)
    return np.asarray(shares / (shares.sum(axis=0) + np.exp(-largest)))
