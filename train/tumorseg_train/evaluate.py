"""A network judged on one part of a split, at the network's own resolution."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tumorseg_runtime.contract import Contract
from tumorseg_train.loader import SplitDataset
from tumorseg_train.metrics import ImageScore, mean_dice, summary, threshold_baseline
from tumorseg_train.split import Manifest


def evaluate(
    model: torch.nn.Module, manifest: Manifest, part: str, contract: Contract
) -> tuple[dict[str, Any], list[ImageScore]]:
    """Figures of a part in sum and by organ, beside the best global intensity threshold; and every score.

    The model runs in evaluation mode on the device where it lies, one image at a time; masks and truth are
    compared at the contract's height x width.
    """
    dataset = SplitDataset(manifest, part, contract)
    device = next(model.parameters()).device
    model.eval()
    scores, images, truths = [], [], []
    for index, item in enumerate(dataset.items):
        tensor, mask = dataset[index]
        with torch.inference_mode():
            logits = model(tensor[None].to(device))[0].float().cpu().numpy()  # (K, h, w)
        truth = np.asarray(mask.numpy().any(axis=0))
        predicted = np.asarray((logits >= np.float32(contract.logit_threshold)).any(axis=0))
        scores.append(ImageScore.of(item.image, predicted, truth))
        images.append(dataset.resized(index)[0])
        truths.append(truth)
    organs = sorted({item.organ for item in dataset.items})
    figures = {
        **summary(scores),
        "by_organ": {
            organ: mean_dice(s for s, item in zip(scores, dataset.items, strict=True) if item.organ == organ)
            for organ in organs
        },
        "threshold_baseline": threshold_baseline(images, truths),
    }
    return figures, scores
