"""The training loss: Dice + λ·BCE, both on logits.

For logits z, p = sigmoid(z) and targets y in {0, 1}, over all pixels of the batch, per class:

    Dice(z, y) = 1 - (2 Σ p y + ε) / (Σ p + Σ y + ε)          (soft Dice: Milletari et al. 2016)
    BCE(z, y)  = -mean(y log p + (1 - y) log(1 - p))
    L          = Dice + λ BCE

The write-up of the original project prints only the positive half of the cross-entropy, -y log p, which
a network minimises by calling every pixel a tumour; the formula here has both halves. Its code also gave
probabilities to a Dice loss that expects logits, so the sigmoid was applied twice and the loss could not
fall below about 0.9 on small lesions; here both parts take logits and nothing else.

The other losses of `LOSSES` are those of segmentation-models-pytorch, told that they get logits and that
each class is a mask of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import segmentation_models_pytorch as smp
import torch

from tumorseg_runtime.core.errors import InputError

_EACH_CLASS = smp.losses.MULTILABEL_MODE
# By name: (λ, ε) -> the loss; only the first one has a λ, and smp's sums take ε as `smooth`.
LOSSES: dict[str, Callable[[float, float], torch.nn.Module]] = {
    "dice+bce": lambda weight, epsilon: DiceBCELoss(weight, epsilon),
    "bce": lambda _, __: smp.losses.SoftBCEWithLogitsLoss(),
    "dice": lambda _, epsilon: smp.losses.DiceLoss(_EACH_CLASS, smooth=epsilon),
    "jaccard": lambda _, epsilon: smp.losses.JaccardLoss(_EACH_CLASS, smooth=epsilon),
    "tversky": lambda _, epsilon: smp.losses.TverskyLoss(_EACH_CLASS, smooth=epsilon),
    "focal": lambda _, __: smp.losses.FocalLoss(_EACH_CLASS),
    "lovasz": lambda _, __: smp.losses.LovaszLoss(_EACH_CLASS),
}


def build_loss(name: str, bce_weight: float, epsilon: float) -> torch.nn.Module:
    """A loss by name: (logits float (N, K, H, W), target float (N, K, H, W) of 0 and 1) -> scalar.

    Raises InputError for an unknown name and for impossible weights.
    """
    if name not in LOSSES:
        raise InputError(f"loss is '{name}', expected one of {', '.join(LOSSES)}")
    return LOSSES[name](bce_weight, epsilon)


class DiceBCELoss(torch.nn.Module):
    """L = Dice + bce_weight * BCE.

    logits: float (N, K, H, W), not passed through a sigmoid; target: float (N, K, H, W) of 0 and 1.
    A class without any target pixel in the batch has no Dice term: its BCE alone is learned from.
    """

    def __init__(self, bce_weight: float = 1.0, epsilon: float = 1.0) -> None:
        super().__init__()
        if bce_weight < 0 or epsilon <= 0:
            raise InputError(f"bce_weight is {bce_weight}, epsilon {epsilon}: expected >= 0 and > 0")
        self.bce_weight = bce_weight
        self.epsilon = epsilon
        self.bce = torch.nn.BCEWithLogitsLoss()

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Scalar loss."""
        loss: torch.Tensor = self.dice(logits, target) + self.bce_weight * self.bce(logits, target)
        return loss

    def dice(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """1 - soft Dice over all pixels of the batch, mean over the classes; 0 for one without a target.

        Written out, since libraries differ in where they put ε.
        """
        p = torch.sigmoid(logits.float())  # sums over a batch of large images leave half precision's range
        y = target.float()
        both, p_sum, y_sum = (x.sum(dim=(0, 2, 3)) for x in (p * y, p, y))  # (K,)
        dice = 1 - (2 * both + self.epsilon) / (p_sum + y_sum + self.epsilon)
        return (dice * (y_sum > 0)).mean()
