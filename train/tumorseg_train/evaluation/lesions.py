"""Lesions found, missed and made up: masks compared as sets of lesions and not of pixels.

A lesion is an 8-connected component, as in the runtime
(`tumorseg_runtime.processing.postprocess.find_lesions`). Pairs of a true and a predicted lesion are taken
greedily by falling IoU, each lesion once, while the IoU is at least LESION_IOU; then, over any number of
images,

    F1 = 2·matched / (true + predicted)      precision = matched / predicted      recall = matched / true

Greedy matching by a localisation criterion: Metrics Reloaded (Maier-Hein et al. 2024). The low IoU of 0.1,
which asks for the place and not for the outline: Jaeger et al. 2020 (Retina U-Net). The smallest speck counts
as a lesion.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
LESION_IOU = 0.1


@dataclasses.dataclass(frozen=True)
class Matches:
    """Numbers of lesions in truth, in the prediction, and of pairs."""

    truth: int
    predicted: int
    matched: int


def match_lesions(predicted: BoolArray, truth: BoolArray) -> Matches:
    """Match the lesions of bool masks (H, W)."""
    p_count, p = cv2.connectedComponents(predicted.astype(np.uint8), connectivity=8)
    t_count, t = cv2.connectedComponents(truth.astype(np.uint8), connectivity=8)
    # (true lesions + 1, predicted lesions + 1) pixels in common; row and column 0 are the background
    both = np.bincount(t.ravel().astype(np.intp) * p_count + p.ravel(), minlength=t_count * p_count)
    both = both.reshape(t_count, p_count)
    union = both.sum(axis=1)[:, None] + both.sum(axis=0)[None] - both
    iou = (both / np.maximum(union, 1))[1:, 1:]
    matched = 0
    while iou.size and iou.max() >= LESION_IOU:
        row, column = np.unravel_index(int(iou.argmax()), iou.shape)
        iou[row], iou[:, column] = 0, 0
        matched += 1
    return Matches(t_count - 1, p_count - 1, matched)
