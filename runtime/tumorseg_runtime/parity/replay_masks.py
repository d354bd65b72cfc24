"""Replay of the golden images for a session that gives masks and no logits (the deploy forms).

Compared are the pixels that this device makes of each image, through the contract's table with the stored
tensor bit by bit, and the mask with the decisions of PyTorch's logits, within the budget of the precision.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import BundleError
from tumorseg_runtime.core.session import Session, checked_infer
from tumorseg_runtime.images.frame import Frame
from tumorseg_runtime.parity.compare import BUDGETS, mask_dice
from tumorseg_runtime.parity.reference import load_golden
from tumorseg_runtime.processing.batching import open_form
from tumorseg_runtime.processing.preprocess import Preprocessor


@dataclasses.dataclass(frozen=True)
class MaskParity:
    """Figures of one image. tensor_differs: values that differ from the stored tensor's bits."""

    image: str
    tensor_differs: int
    pixels: int
    flipped: int
    dice: float
    breaches: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class MaskReport:
    """Verdict on one artefact under one backend and device."""

    artefact: str
    images: tuple[MaskParity, ...]

    @property
    def passed(self) -> bool:
        """True where at least one image was compared and none breaks the budget."""
        return bool(self.images) and not self.breaches

    @property
    def breaches(self) -> tuple[str, ...]:
        """One line per breach: artefact, image, figure, budget."""
        return tuple(
            f"{self.artefact}: {image.image}: {line}" for image in self.images for line in image.breaches
        )


def replay_masks(bundle: Bundle, session: Session, artefact: str) -> MaskReport:
    """Bytes -> pixels -> mask of every golden image that the form takes, one by one, against PyTorch's.

    Raises BundleError where the bundle has no such image: a form for gray needs a gray one.
    """
    contract, budget = bundle.contract, BUDGETS[session.info.precision]
    form = open_form(contract, session.input, session.info.backend)
    table, (channels, _, _) = Preprocessor(contract).table, session.input.shape(contract)
    golden = [item for item in load_golden(bundle) if item.pixels.ndim == 2 or channels == 3]
    if not golden:
        raise BundleError(
            f"{bundle.root}: has no gray golden image, expected one to test {artefact}: export it again"
        )
    images = []
    for item in golden:
        pixels = form.prepare(Frame(item.name, item.pixels))
        tensor = np.stack([row[pixels[min(index, channels - 1)]] for index, row in enumerate(table)])
        differs = int(np.count_nonzero(tensor.view(np.uint32) != item.tensor.view(np.uint32)))
        got = checked_infer(session, form.gather([pixels]), contract)[0].astype(np.bool_)
        expected = item.logits >= np.float32(contract.logit_threshold)
        flipped, dice = int(np.count_nonzero(got != expected)), mask_dice(expected, got)
        breaches = []
        if differs:
            breaches.append(f"{differs} values of the preprocessed tensor differ, expected 0")
        if flipped > max(budget.flipped_share * got.size, budget.free_pixels):
            breaches.append(
                f"{flipped} of {got.size} pixels flipped, expected at most {budget.flipped_share:g} of them"
            )
        if dice < budget.dice and flipped > budget.free_pixels:
            breaches.append(f"Dice between the masks is {dice:.4f}, expected at least {budget.dice:g}")
        images.append(MaskParity(item.name, differs, got.size, flipped, dice, tuple(breaches)))
    return MaskReport(artefact, tuple(images))
