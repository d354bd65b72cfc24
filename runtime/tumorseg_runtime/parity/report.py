"""What a comparison found: figures of one image, and the verdict on one artefact over a set of images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from tumorseg_runtime.parity.budget import Budget
from tumorseg_runtime.parity.failures import Failures
from tumorseg_runtime.parity.mask_diff import Decisions

SHOWN = 3  # breaches in a message


@dataclasses.dataclass(frozen=True)
class ImageParity:
    """Figures of one image. `tensor_differs`: elements of the preprocessed tensor whose bits differ,
    None where only logits were compared. Errors are in logits; relative_error is the largest one in standard
    deviations; they are NaN for a form that gives masks alone. cosine: between the two logits. decisions: at
    the network's size, None for such a form. at_image: at the image's own size, None where no mask was made
    there. call: how the image went through the door (`tumorseg_runtime.parity.replay`). amounts: those of
    the breaches that limit how much is decided otherwise, and not what no error of the logits explains."""

    image: str
    tensor_differs: int | None
    max_error: float
    mean_error: float
    relative_error: float
    pixels: int
    flipped: int
    dice: float
    breaches: tuple[str, ...]
    cosine: float | None = None
    decisions: Decisions | None = None
    at_image: Decisions | None = None
    call: str = ""
    amounts: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ParityReport:
    """Verdict on one artefact under one backend and device, over a set of images."""

    artefact: str
    backend: str
    device: str
    precision: str
    versions: dict[str, str]
    budget: Budget
    scale: float
    images: tuple[ImageParity, ...]

    @property
    def passed(self) -> bool:
        """True where at least one image was compared and none breaks the budget."""
        return bool(self.images) and not self.breaches

    @property
    def breaches(self) -> tuple[str, ...]:
        """One line per breach: artefact, image, figure, budget; what all images break together comes last."""
        lines = [
            f"{self.artefact}: {image.image}{f' ({image.call})' if image.call else ''}: {line}"
            for image in self.images
            for line in image.breaches
        ]
        return (*lines, *(f"{self.artefact}: all images: {line}" for line in self.breaches_of_all))

    @property
    def breaches_of_all(self) -> tuple[str, ...]:
        """What the images break in sum."""
        found = [one for image in self.images if (one := image.decisions or image.at_image)]
        flipped, pixels = sum(one.flipped / one.wide**2 for one in found), sum(one.pixels for one in found)
        border = sum(one.border / one.wide for one in found)
        allowed, free = self.budget.flips_per_border_in_all, self.budget.free_pixels
        if allowed is None or flipped <= max(allowed * border, free):
            return ()
        line = (
            f"{flipped:.4g} of {pixels} pixels flipped, expected at most {allowed:g} for each of "
            f"{border:.0f} pixels of the masks' borders"
        )
        return (line,)

    @property
    def failures(self) -> Failures:
        """How many images broke the budget."""
        return Failures.of((image.image, bool(image.breaches)) for image in self.images)

    @property
    def only_amounts(self) -> bool:
        """True where there are breaches, and all of them are of how much is decided otherwise."""
        return bool(self.breaches) and all(set(image.breaches) <= set(image.amounts) for image in self.images)

    @property
    def in_words(self) -> str:
        """What differs from PyTorch, in three words at most; only for a report with breaches."""
        found = [one for image in self.images for one in (image.decisions, image.at_image) if one]
        if any(math.isinf(image.max_error) for image in self.images):
            return "logits not comparable"
        if any(one.events for one in found):
            return "lesions differ"
        return "masks differ" if any(one.flipped for one in found) else "only logits differ"

    @property
    def worst(self) -> ImageParity:
        """The image with the most breaches, then the most flipped pixels, then the largest error."""
        return max(self.images, key=lambda i: (len(i.breaches), i.flipped, i.max_error))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; an error that is not finite, or not known, is null."""
        values = dataclasses.asdict(self)
        for image in values["images"]:
            for name in ("max_error", "mean_error", "relative_error"):
                image[name] = image[name] if math.isfinite(image[name]) else None
        return {"passed": self.passed, "failures": self.failures.to_dict(), **values}


def summary(breaches: Sequence[str]) -> str:
    """The first breaches, and how many more there are, in one line for a message."""
    more = f"; and {len(breaches) - SHOWN} more" if len(breaches) > SHOWN else ""
    return "; ".join(breaches[:SHOWN]) + more
