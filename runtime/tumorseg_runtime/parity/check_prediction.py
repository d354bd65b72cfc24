"""One prediction of the door against its reference: everything that a user can read from it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.conformance.guard_rule import Guarded, guard_breaches
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import TumorsegError
from tumorseg_runtime.images.frame import Frame, Spacing
from tumorseg_runtime.parity.budget import Budget
from tumorseg_runtime.parity.compare import (
    RESIZE_ROUNDING,
    FinalMasks,
    ImageParity,
    compare_final_masks,
    compare_image,
    differing_bits,
)
from tumorseg_runtime.parity.margin import Band
from tumorseg_runtime.parity.reference import Reference
from tumorseg_runtime.parity.rules import (
    PROBABILITY_SLOPES,
    RuleLesion,
    bands_of,
    diameter_rule,
    distance_rule,
    lesions_rule,
    probability_rule,
    resized_rule,
    spacing_rule,
    walk,
)
from tumorseg_runtime.parity.written import Written, written_breaches
from tumorseg_runtime.processing.postprocess import Lesion
from tumorseg_runtime.processing.preprocess import Preprocessor

FLOAT_ROUNDING = 1e-5  # of a probability, and relative of millimetres and centroids
FloatArray = npt.NDArray[np.float32]
Answer = TypeVar("Answer")


class Predicted(Written, Guarded, Protocol):
    """What the door gives for one image (`tumorseg_runtime.Prediction`)."""

    band: Band | None

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """bool (H, W): pixels of any class."""


class Checked(Protocol):
    """What a checker needs of the door."""

    contract: Contract
    gives_masks: bool
    resizes_masks: bool

    def prepare(self, frame: Frame) -> npt.NDArray[Any]:
        """The network's input, made of one frame."""


class Checker:
    """Checks predictions of one door. One that equals a checked one in all it holds is not checked again."""

    def __init__(self, door: Checked, budget: Budget, scale: float) -> None:
        self.door, self.budget, self.scale = door, budget, scale
        self._table = Preprocessor(door.contract)
        self._decided: dict[str, list[tuple[Predicted, ImageParity]]] = {}
        self._listed: dict[str, list[tuple[Predicted, list[str]]]] = {}

    def failed(self, item: Reference, call: str, error: TumorsegError) -> ImageParity:
        """The figures of an image for which the door raised a failed check."""
        size = item.logits.size
        return ImageParity(
            item.name, None, math.inf, math.inf, math.inf, size, size, 0.0, (str(error),), call=call
        )

    def check(
        self,
        item: Reference,
        expected: tuple[str, tuple[Spacing, ...]],
        found: Predicted,
        call: str,
        *,
        written: bool = False,
    ) -> ImageParity:
        """expected: the name that the prediction must have, and the spacings. written: its files, too."""
        name, spacings = expected
        lines = []
        if found.name != name:
            lines.append(f"the prediction is named '{found.name}', expected '{name}'")
        if found.frame.spacings != spacings:
            lines.append(f"spacings are {found.frame.spacings}, expected {spacings}")
        right = (len(self.door.contract.classes), *found.frame.pixels.shape[:2])
        if written and found.masks.shape == right:  # another shape is a breach of its own
            lines += written_breaches(found, self.door.contract.classes)
        parity = _once(self._decided, item, found, _same_decisions, lambda: self._decisions(item, found))
        known = _once(self._listed, item, found, _same_lesions, lambda: self._lesions(found))
        lines += known
        return dataclasses.replace(parity, breaches=(*lines, *parity.breaches), call=call)

    def _lesions(self, found: Predicted) -> list[str]:
        contract = self.door.contract
        right = found.masks.ndim == 3 and len(found.masks) == len(contract.classes)
        return _lesion_breaches(found, contract) if right else []  # another shape is a breach of its own

    def _decisions(self, item: Reference, found: Predicted) -> ImageParity:
        contract, height, width = self.door.contract, *item.pixels.shape[:2]
        lines = []
        if differs := differing_bits(item.pixels, found.frame.pixels):
            lines.append(f"{differs} of the image's own pixels differ, expected 0")
        final, tensors = FinalMasks(found.masks, height, width), self._tensors(item, found.frame)
        if found.own_logits is None:
            parity = compare_final_masks(
                item.name, item.logits, final, contract=contract,
                allowed=self.budget.relative_error * self.scale, budget=self.budget,
                resizes_masks=self.door.resizes_masks, tensors=tensors,
            )  # fmt: skip
            lines += _margin_breaches(found, item, contract, self.budget.relative_error * self.scale)
        else:
            parity = compare_image(
                item.name, item.logits, found.own_logits, contract=contract, scale=self.scale,
                budget=self.budget, tensors=tensors, final=final,
            )  # fmt: skip
            if found.own_logits.shape == item.logits.shape and found.masks.shape[1:] == (height, width):
                lines += _own_breaches(found, contract)
        lines += guard_breaches(found)
        if not np.array_equal(found.mask, found.masks.any(axis=0)):
            lines.append("the mask of all classes is not their union")
        if self.door.gives_masks != (found.own_logits is None):
            lines.append("logits are missing or there where they should not be")
        return dataclasses.replace(parity, breaches=(*parity.breaches, *lines))

    def _tensors(self, item: Reference, frame: Frame) -> tuple[FloatArray, FloatArray] | None:
        """The tensor that must be made of the image and the one that the door makes of the prediction's
        frame; None where it is not known, or made in the GPU's memory."""
        if item.tensor is None:
            return None
        made = self.door.prepare(frame)
        if made.dtype == np.uint8:
            if made.ndim != 3 or made.shape[1:] != item.tensor.shape[1:]:
                return None  # the frame's own pixels: the GPU makes the tensor
            planes = made[0] if len(made) == 1 else np.ascontiguousarray(made.transpose(1, 2, 0))
            return item.tensor, self._table.normalise(planes)
        return item.tensor.astype(made.dtype, copy=False), made


def _once(
    known: dict[str, list[tuple[Predicted, Answer]]],
    item: Reference,
    found: Predicted,
    same: Callable[[Predicted, Predicted], bool],
    check: Callable[[], Answer],
) -> Answer:
    """What `check` says of a prediction, or said of one of the same image that holds the same."""
    before = known.setdefault(item.name, [])
    for other, answer in before:
        if same(other, found):
            return answer
    answer = check()
    before.append((found, answer))
    return answer


def _same_lesions(one: Predicted, other: Predicted) -> bool:
    return (
        one.lesions == other.lesions
        and one.frame.spacings == other.frame.spacings
        and np.array_equal(one.masks, other.masks)
    )


def _same_decisions(one: Predicted, other: Predicted) -> bool:
    """Whether two predictions of one image decide the same, bit for bit."""
    logits = one.own_logits, other.own_logits
    return (
        one.close == other.close
        and one.input_check == other.input_check
        and np.array_equal(one.masks, other.masks)
        and np.array_equal(one.frame.pixels, other.frame.pixels)
        and (
            logits == (None, None) if logits[0] is None or logits[1] is None else np.array_equal(*logits)  # type: ignore[arg-type]
        )
    )


def _margin_breaches(found: Predicted, item: Reference, contract: Contract, allowed: float) -> list[str]:
    """What a margin that a GPU counted is not that the reference's logits say, which err by `allowed`."""
    if found.close is None or found.band is None:
        return []
    near = np.abs(distance_rule(resized_rule(item.logits, *found.masks.shape[1:]), contract))
    edge = found.band.logits
    least, most = (np.count_nonzero(near <= edge + step) / near.size for step in (-allowed, allowed))
    if least <= found.close <= most:
        return []
    return [f"margin is {found.close}, expected {least:.6f} to {most:.6f}"]


def _own_breaches(found: Predicted, contract: Contract) -> list[str]:
    """What the prediction's masks, probabilities and margin are not that its own logits say."""
    assert found.own_logits is not None
    lines, (height, width) = [], found.masks.shape[1:]
    rounding = RESIZE_ROUNDING * float(np.ptp(found.own_logits))
    edge = 0.0 if found.band is None else found.band.logits
    probabilities = found.probabilities()
    if alike := probabilities.shape == found.masks.shape:
        error = 0.0
    else:
        lines.append(f"probabilities have shape {probabilities.shape}, expected {found.masks.shape}")
    wrong, near = 0, np.zeros(2)
    for rows in bands_of(height, width):
        resized = resized_rule(found.own_logits, height, width, rows)
        distance = distance_rule(resized, contract)
        away = np.abs(distance)
        wrong += int(np.count_nonzero((found.masks[:, rows] != (distance >= 0)) & (away > rounding)))
        near += [np.count_nonzero(away <= edge + step) for step in (-rounding, rounding)]
        if alike:
            right = probability_rule(resized, contract)
            error = np.maximum(error, np.abs(probabilities[:, rows] - right).max())  # keeps NaN
    if wrong:
        lines.append(f"{wrong} pixels of the mask are not what the logits say, expected 0")
    allowed = PROBABILITY_SLOPES[contract.rule] * rounding / contract.temperature + FLOAT_ROUNDING
    if alike and not error <= allowed:
        lines.append(f"probabilities err by {error:.2g}, expected at most {allowed:.1g}")
    if found.band is not None:
        least, most = near / found.masks.size
        if found.margin is None or not least <= found.margin <= most:
            lines.append(f"margin is {found.margin}, expected {least:.6f} to {most:.6f}")
    return lines


def _lesion_breaches(found: Predicted, contract: Contract) -> list[str]:
    """What the prediction's lesions are not that its masks say."""
    lines = []
    unknown = {lesion.label for lesion in found.lesions} - set(contract.classes)
    if unknown:
        lines.append(f"lesions are labelled {sorted(unknown)}, expected {contract.classes}")
    for label, mask in zip(contract.classes, found.masks, strict=True):
        mine = [lesion for lesion in found.lesions if lesion.label == label]
        rule = lesions_rule(mask)
        if len(mine) != len(rule):
            lines.append(f"{len(mine)} lesions of {label}, expected {len(rule)}")
            continue
        if [lesion.area_px for lesion in mine] != sorted((one.area for one in rule), reverse=True):
            lines.append(f"areas of {label} are not those of the mask's components, the largest first")
            continue
        left: dict[tuple[int, tuple[int, ...]], list[RuleLesion]] = {}
        for one in rule:
            left.setdefault((one.area, one.box), []).append(one)
        for lesion in mine:
            alike = left.get((lesion.area_px, tuple(lesion.box)), [])
            match = next((one for one in alike if _is(lesion, one)), None)
            if match is None:
                lines.append(
                    f"a lesion of {label} with {lesion.area_px} pixels in box {lesion.box} has a box, "
                    "centroid or contour that no component of the mask has"
                )
                break
            alike.remove(match)
            lines += _millimetre_breaches(lesion, match, found.frame.spacings)
    return lines


def _is(lesion: Lesion, rule: RuleLesion) -> bool:
    """Whether centroid and contour are those of a component with the same area and box."""
    near = all(abs(a - b) <= 1e-6 for a, b in zip(lesion.centroid, rule.centroid, strict=True))
    return near and walk(lesion.contour) == rule.border


def _millimetre_breaches(lesion: Lesion, rule: RuleLesion, spacings: Sequence[Spacing]) -> list[str]:
    spacing = spacing_rule(rule.box, spacings)
    got = (lesion.area_mm2, lesion.box_mm, lesion.diameter_mm)
    if spacing is None:
        return [] if got == (None, None, None) else [f"millimetres are {got}, expected none"]
    row, column = spacing
    area, size = rule.area * row * column, (rule.box[2] * column, rule.box[3] * row)
    expected = (area, size, diameter_rule(rule, row, column))
    if lesion.area_mm2 is None or lesion.box_mm is None or lesion.diameter_mm is None:
        return [f"millimetres are {got}, expected {expected}"]
    flat = np.array([lesion.area_mm2, *lesion.box_mm, lesion.diameter_mm])
    if np.allclose(flat, [area, *size, expected[2]], rtol=FLOAT_ROUNDING):
        return []
    return [f"millimetres are {got}, expected {expected}"]
