"""What training asks of a finished network: its figures on one part of a split, at the network's own size.

The command `tumorseg evaluate` (`tumorseg_train.evaluation.evaluate`) tells more of the same predictions.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.processing.preprocess import Preprocessor
from tumorseg_train.data.split import Manifest
from tumorseg_train.evaluation.metrics import ImageScore, mean_dice
from tumorseg_train.evaluation.predictions import Infer, score_part

if TYPE_CHECKING:
    import torch

TOLD = ("mean_iou", "pooled_precision", "pooled_recall", "hd95_px", "lesion_f1", "specificity")


def evaluate(
    model: torch.nn.Module, manifest: Manifest, part: str, contract: Contract
) -> tuple[dict[str, Any], list[ImageScore]]:
    """Figures of a part in sum and by organ, beside the best global intensity threshold; and every score.

    The model runs in evaluation mode on the device where it lies, one image at a time; masks and truth are
    compared at the contract's height x width. intervals: 95 %, over groups
    (`tumorseg_train.report.bootstrap`). A figure that is not defined is None.
    """
    predictions = score_part(torch_infer(model, contract), manifest, part, contract)
    scores = list(predictions.scores)
    strata = predictions.strata()
    figures = strata["all"][0].figures
    healthy = [score for score in scores if not score.truth_px]
    return {
        "images": len(scores),
        "images_with_tumour": len(scores) - len(healthy),
        "mean_dice": mean_dice(scores),
        "pooled_f1": figures["pooled_f1"].value,
        "healthy_left_empty": sum(not score.predicted_px for score in healthy),
        "by_organ": {each.name: each.figures["mean_dice"].value for each in strata["organ"]},
        "threshold_baseline": predictions.baseline,
        **{name: _known(figures[name].value) for name in TOLD},
        "intervals": {
            name: [_known(figures[name].low), _known(figures[name].high)]
            for name in ("mean_dice", "pooled_f1")
        },
    }, scores


def torch_infer(model: torch.nn.Module, contract: Contract) -> Infer:
    """A network as `score_part` asks for it, in evaluation mode on the device where it lies."""
    import torch

    device = next(model.parameters()).device
    preprocess = Preprocessor(contract)
    model.eval()

    def infer(image: npt.NDArray[np.uint8], name: str) -> npt.NDArray[np.float32]:
        tensor = torch.from_numpy(preprocess(image, name))  # (C, h, w)
        with torch.inference_mode():
            logits = model(tensor[None].to(device))[0]
        return np.asarray(logits.float().cpu().numpy())

    return infer


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
