"""A network's answers for one part of a split, image by image. No torch here: `infer` is any network with
its preprocessing.

Masks are compared at the contract's size ('contract', what the network sees and training optimises), at
each image's own size ('original', what the runtime delivers), or at a square of so many pixels ('512'), so
that networks of different sizes can be set side by side. The true mask is resized by nearest neighbour, as in
training, and the logits as in the runtime.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.contract import SIGMOID, Contract
from tumorseg_runtime.core.errors import InputError, OutputError
from tumorseg_runtime.core.progress import Tell, silent, told
from tumorseg_runtime.processing.decision import decide
from tumorseg_runtime.processing.postprocess import probabilities, resize_logits
from tumorseg_runtime.processing.preprocess import Preprocessor, resize
from tumorseg_train.data.datasets import read_pair
from tumorseg_train.data.split import Item, Manifest
from tumorseg_train.evaluation.calibration import Bins, around, calibration
from tumorseg_train.evaluation.metrics import ImageScore, ThresholdBaseline, mean_dice
from tumorseg_train.evaluation.summary import Stratum, size_class, stratum
from tumorseg_train.layouts.volumes import file_of, same_content
from tumorseg_train.report.bootstrap import DRAWS, draw_weights

if TYPE_CHECKING:
    import torch

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
Infer = Callable[[npt.NDArray[np.uint8], str], FloatArray]
CONTRACT, ORIGINAL = "contract", "original"
MOST = 8192  # pixels of a side
IN_RUN = ("mean_iou", "pooled_precision", "pooled_recall", "hd95_px", "lesion_f1", "specificity")


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
    """One image at the scale of the evaluation.

    image: uint8 (H, W[, 3]). truth, predicted: bool (H, W), the union of the classes. probability: float32
    (H, W), the largest of the classes. logits: float32 (K, H, W).
    """

    image: npt.NDArray[np.uint8]
    truth: BoolArray
    predicted: BoolArray
    probability: FloatArray
    logits: FloatArray


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """Items of the part in order, and what each came to.

    near: pixels around the tumour, of images with one (`calibration.around`).
    vanished: images whose tumour is so small that nothing is left of it at the contract's size.
    """

    items: tuple[Item, ...]
    scores: tuple[ImageScore, ...]
    bins: tuple[Bins, ...]
    near: tuple[Bins, ...]
    baseline: dict[str, float | int | str]
    vanished: tuple[str, ...]

    @property
    def groups(self) -> tuple[str, ...]:
        """The name of each image's group; an image without one is a group by itself."""
        return tuple(group_of(item) for item in self.items)

    def strata(self, draws: int = DRAWS) -> dict[str, list[Stratum]]:
        """Figures of 'all', and by 'organ', 'class' and 'size' of the lesion."""
        weights = draw_weights(self.groups, draws)
        keys: dict[str, list[str]] = {
            "all": ["all images"] * len(self.items),
            "organ": [item.organ for item in self.items],
            "class": [f"{item.organ}, {item.label}" for item in self.items],
            "size": [size_class(score) for score in self.scores],
        }
        return {
            kind: [
                stratum(
                    name, self.scores, self.groups, weights, [i for i, n in enumerate(names) if n == name]
                )
                for name in sorted(set(names), key=_order)
            ]
            for kind, names in keys.items()
        }

    def calibration(self, draws: int = DRAWS) -> dict[str, Any]:
        """`calibration` over 'all' pixels and 'near' the tumours."""
        sick = [group for group, score in zip(self.groups, self.scores, strict=True) if score.truth_px]
        return {
            "all": calibration(self.bins, draw_weights(self.groups, draws)),
            "near": calibration(self.near, draw_weights(sick, draws)),
        }


def group_of(item: Item) -> str:
    """The item's group, or itself where the split has none."""
    return item.group or item.image


def _order(name: str) -> tuple[int, str]:
    """Sizes from small to large, others by name."""
    return next(
        (i for i, start in enumerate(("small", "medium", "large")) if name.startswith(start)), 9
    ), name


def size_of(scale: str, height: int, width: int) -> tuple[int, int] | None:
    """Height and width at which masks are compared; None for each image's own.

    scale: 'contract', 'original', or pixels of a square. height, width: of the contract.
    Raises InputError for anything else.
    """
    if scale == CONTRACT:
        return height, width
    if scale == ORIGINAL:
        return None
    if not (scale.isascii() and scale.isdigit() and 1 <= int(scale) <= MOST):
        raise InputError(
            f"scale is '{scale}', expected contract, original, or 1 to {MOST} pixels such as 512"
        )
    return int(scale), int(scale)


def answer(infer: Infer, contract: Contract, manifest: Manifest, item: Item, scale: str = CONTRACT) -> Answer:
    """Read an image and its masks, and let the network answer.

    Raises InputError where a file cannot be read or is not the one that the split names, OutputError for
    logits that are not finite.
    """
    for name, sha256 in item.files.items():
        path = manifest.root / name
        if not same_content(path, sha256):
            state = "differs from the file of the split" if os.path.isfile(file_of(path)) else "is missing"
            raise InputError(
                f"{path}: {state}, expected the very data of the split: give its folder with --data, or "
                "split and train again"
            )
    image, truth = read_pair(manifest.root, item)
    logits = infer(image, item.image)  # (K, h, w)
    if not np.isfinite(logits).all():
        raise OutputError(
            f"{item.image}: the network's logits are not finite, expected numbers: the weights are broken, "
            "train again"
        )
    if size := size_of(scale, contract.height, contract.width):
        image = resize(image, *size)
        resized = cv2.resize(truth.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        truth = np.asarray(resized, np.bool_)
    logits = resize_logits(logits, *truth.shape)
    predicted = np.asarray(decide(logits, contract).any(axis=0))
    shares = probabilities(logits, contract, *truth.shape)
    tumour = shares.max(axis=0) if contract.rule == SIGMOID else shares.sum(axis=0)
    return Answer(image, truth, predicted, np.asarray(tumour), logits)


def score_part(
    infer: Infer,
    manifest: Manifest,
    part: str,
    contract: Contract,
    *,
    scale: str = CONTRACT,
    spacing: Mapping[str, float] | None = None,
    tell: Tell = silent,
) -> Predictions:
    """Judge a network on 'train', 'val' or 'test'.

    infer: (uint8 image of any size (H, W[, 3]), its name) -> logits float32 (K, h, w) at the contract's size.
    spacing: mm between neighbouring pixels of the image files, by organ, for distances in mm.
    tell: the share of the images that is done.
    Raises InputError for a part without images, and for the spacing of an organ that the split has not.
    """
    items = manifest.part(part)
    organs = sorted({item.organ for item in manifest.items})
    if unknown := sorted(set(spacing or {}) - set(organs)):
        raise InputError(
            f"spacing is given for {', '.join(unknown)}, expected organs of the split: {', '.join(organs)}: "
            "correct it"
        )
    if not items:
        raise InputError(f"the split has no image in '{part}', expected some: choose another part")
    baseline = ThresholdBaseline()
    scores, bins, near, vanished = [], [], [], []
    for item in told(items, tell):
        found = answer(infer, contract, manifest, item, scale)
        height, width = found.truth.shape
        mm = (spacing or {}).get(item.organ)
        steps = None if mm is None else (mm * item.height / height, mm * item.width / width)
        scores.append(ImageScore.of(item.image, found.predicted, found.truth, steps))
        bins.append(Bins.of(found.probability, found.truth))
        if found.truth.any():
            box = around(found.truth)
            near.append(Bins.of(found.probability[box], found.truth[box]))
        elif item.tumour_px:
            vanished.append(item.image)
        baseline.add(found.image, found.truth)
    return Predictions(items, tuple(scores), tuple(bins), tuple(near), baseline.best(), tuple(vanished))


def evaluate(
    model: torch.nn.Module, manifest: Manifest, part: str, contract: Contract, tell: Tell = silent
) -> tuple[dict[str, Any], list[ImageScore]]:
    """Figures of a part in sum and by organ, beside the best global intensity threshold; and every score.

    The model runs in evaluation mode on the device where it lies, one image at a time; masks and truth are
    compared at the contract's height x width. intervals: 95 %, over groups
    (`tumorseg_train.report.bootstrap`). A figure that is not defined is None.
    """
    predictions = score_part(torch_infer(model, contract), manifest, part, contract, tell=tell)
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
        **{name: _known(figures[name].value) for name in IN_RUN},
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
