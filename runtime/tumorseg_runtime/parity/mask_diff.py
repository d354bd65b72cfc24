"""Two decisions on one image, PyTorch's and an artefact's: which pixels flip, and what becomes of lesions.

A pixel may flip where PyTorch's logit lies nearer to the threshold than the artefact errs: this is the band.
A flip outside of it cannot come from the logits' error: something after the network went wrong.

HD95 tells how far apart the borders of two masks lie, in pixels. The border of a mask is made of its pixels
that have a 4-neighbour outside of it, or lie at the image's edge. From each border pixel of one mask the
distance to the nearest border pixel of the other is taken; the 95th percentile of these, linearly
interpolated, is one direction, and HD95 is the larger of both directions.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]

LISTED = 20  # events of an image that are listed, the largest first
_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
_PERCENTILE = 95


@dataclasses.dataclass(frozen=True)
class Event:
    """A lesion of one mask, 8-connected, where the other has not a pixel.

    kind: 'appeared' in the artefact's mask, or 'vanished' from PyTorch's. klass: number of the class.
    box: left, top, width, height. outside: pixels outside of the band.
    """

    kind: str
    klass: int
    area_px: int
    box: tuple[int, int, int, int]
    outside: int


@dataclasses.dataclass(frozen=True)
class Decisions:
    """Masks (K, H, W) of an artefact against PyTorch's; pairs are (PyTorch's, the artefact's).

    pixels: K * H * W, all decisions.
    band: half the width, in logits, of the band around the threshold. near: pixels within it.
    flipped: pixels that were decided otherwise. outside: those of them that lie outside of the band.
    box: left, top, width, height in pixels around all that flipped; None where none did.
    dice: between the masks, 1 where both are empty.
    lesions, area_px: 8-connected components and pixels of all classes.
    hd95_px: of the class where it is worst, without the lesions that
        appeared or vanished. border: pixels of the borders of PyTorch's masks, of all classes.
    wide: pixels of these masks for one of the network, along a line, at least 1.
    event_px: pixels of all lesions that appeared or vanished. events: those, at most `LISTED`.
    """

    height: int
    width: int
    pixels: int
    band: float
    near: int
    flipped: int
    outside: int
    box: tuple[int, int, int, int] | None
    dice: float
    lesions: tuple[int, int]
    area_px: tuple[int, int]
    hd95_px: float
    border: int
    wide: float
    event_px: int
    events: tuple[Event, ...]

    @property
    def where(self) -> str:
        """The place of what flipped, for people; empty where nothing did."""
        if self.box is None:
            return ""
        left, top, width, height = self.box
        return f"within {width}x{height} pixels at column {left}, row {top}"


def compare_masks(
    ours: BoolArray, theirs: BoolArray, near: BoolArray, band: float, wide: float = 1.0
) -> Decisions:
    """Masks bool (K, H, W) of PyTorch and an artefact; near: pixels that lie in the band."""
    flips = ours != theirs
    outside = flips & ~near
    distances, events, borders, event_px = [0.0], list[Event](), 0, 0
    for klass, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        borders += int(np.count_nonzero(border(a)))
        if not flips[klass].any():
            continue
        both, one_sided = a & b, list[BoolArray]()
        for kind, mask in (("vanished", a), ("appeared", b)):
            alone, found = _alone(kind, klass, mask, both, outside[klass])
            one_sided.append(alone)
            events += found
            event_px += int(np.count_nonzero(alone))
        apart = hd95(a & ~one_sided[0], b & ~one_sided[1])
        assert apart is not None  # a component with a partner has one on the other side
        distances.append(apart)
    return Decisions(
        height=ours.shape[1],
        width=ours.shape[2],
        pixels=ours.size,
        band=float(band),
        near=int(np.count_nonzero(near)),
        flipped=int(np.count_nonzero(flips)),
        outside=int(np.count_nonzero(outside)),
        box=_box(flips.any(axis=0)),
        dice=mask_dice(ours, theirs),
        lesions=(lesions := _lesions(ours), _lesions(theirs) if flips.any() else lesions),
        area_px=(int(np.count_nonzero(ours)), int(np.count_nonzero(theirs))),
        hd95_px=max(distances),
        border=borders,
        wide=wide,
        event_px=event_px,
        events=tuple(sorted(events, key=lambda one: -one.area_px)[:LISTED]),
    )


def _alone(
    kind: str, klass: int, mask: BoolArray, both: BoolArray, outside: BoolArray
) -> tuple[BoolArray, list[Event]]:
    """The components of a mask (H, W) that lie nowhere in `both`: as a mask, and one by one."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    lonely = np.bincount(labels[both], minlength=count) == 0
    lonely[0] = False
    beyond = np.bincount(labels[outside], minlength=count)
    events = []
    for number in np.flatnonzero(lonely):
        left, top, width, height, area = (int(value) for value in stats[number])
        events.append(Event(kind, klass, area, (left, top, width, height), int(beyond[number])))
    return np.asarray(lonely[labels]), events


def mask_dice(first: BoolArray, second: BoolArray) -> float:
    """Dice coefficient 2|A∩B| / (|A|+|B|) of two masks (Dice 1945); 1 where both are empty."""
    total = int(first.sum()) + int(second.sum())
    return 1.0 if total == 0 else 2 * int((first & second).sum()) / total


def _box(flips: BoolArray) -> tuple[int, int, int, int] | None:
    rows, columns = np.nonzero(flips)
    if not len(rows):
        return None
    left, top = int(columns.min()), int(rows.min())
    return left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1


def _lesions(masks: BoolArray) -> int:
    """Number of 8-connected components of all classes, as `postprocess.find_lesions` counts them."""
    return sum(cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1 for mask in masks)


def hd95(first: BoolArray, second: BoolArray) -> float | None:
    """HD95 of two masks (H, W) in pixels: 0 where both are empty, None where one is."""
    rows, columns = np.nonzero(first | second)
    if not len(rows):
        return 0.0
    if not first.any() or not second.any():
        return None
    window = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    borders = [border(mask[window]) for mask in (first, second)]
    return max(_directed(*borders), _directed(*reversed(borders)))


def border(mask: BoolArray) -> BoolArray:
    """The border pixels of a mask (H, W)."""
    inner = cv2.erode(mask.astype(np.uint8), _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(mask & (inner == 0))


def _directed(source: BoolArray, target: BoolArray) -> float:
    to_target = cv2.distanceTransform((~target).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return float(np.percentile(to_target[source], _PERCENTILE))
