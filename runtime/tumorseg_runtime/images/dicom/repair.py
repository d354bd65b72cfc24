"""What a DICOM file says of its windows and distances, without what cannot be meant.

A window of no width, a distance of zero or a region without its numbers costs the window or the millimetres,
not the image: the element is taken out of the data in memory, and a warning says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tumorseg_runtime.images.dicom.lookup_tables import first_number

if TYPE_CHECKING:
    from pydicom import Dataset

SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_NARROWEST = {"LINEAR": 1.0, "LINEAR_EXACT": 0.0, "SIGMOID": 0.0}  # LINEAR's may be that, the others' not
_REGION = (
    "RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1",
    "PhysicalDeltaX", "PhysicalDeltaY",
)  # fmt: skip
_LARGEST_MM = 1e4
_UNREADABLE = (ValueError, TypeError, OverflowError, IndexError, AttributeError)


def drop_unusable(dataset: Dataset) -> tuple[str, ...]:
    """Take unusable windows, distances and regions out of `dataset`; what was taken, a line each."""
    notes: dict[str, None] = {}  # in order, each once: frames may share a fault
    for holder in _holders(dataset):
        for name in SPACINGS:
            if not _usable_spacing(holder, name):
                notes[f"{name} is {_shown(holder, name)}, expected two positive numbers: no millimetres"] = (
                    None
                )
                del holder[name]
        if not _usable_window(holder):
            function = str(holder.get("VOILUTFunction") or "LINEAR")
            text = f"window {_shown(holder, 'WindowCenter')}, {_shown(holder, 'WindowWidth')} ({function})"
            notes[f"{text} cannot be applied: shown without it"] = None
            del holder["WindowCenter"]
    regions = dataset.get("SequenceOfUltrasoundRegions") or []
    kept = [region for region in regions if _usable_region(region)]
    if len(kept) < len(regions):
        text = f"{len(regions) - len(kept)} of {len(regions)} ultrasound regions lack usable numbers"
        notes[f"{text}: no millimetres there"] = None
        dataset.SequenceOfUltrasoundRegions = kept
    return tuple(notes)


def _holders(dataset: Dataset) -> Iterator[Dataset]:
    """The data set, and the groups of frames that hold windows and distances."""
    yield dataset
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for groups in dataset.get(name) or ():
            for group in ("FrameVOILUTSequence", "PixelMeasuresSequence"):
                yield from (groups.get(group) or ())[:1]


def _usable_spacing(holder: Dataset, name: str) -> bool:
    """True also where there is none."""
    try:
        value = holder.get(name)
        if value in (None, ""):
            return True
        row, column = (float(one) for one in value)
    except _UNREADABLE:
        return False
    return 0 < row < _LARGEST_MM and 0 < column < _LARGEST_MM


def _usable_window(holder: Dataset) -> bool:
    """True also where there is none."""
    try:
        if any(holder.get(name) in (None, "") for name in ("WindowCenter", "WindowWidth")):
            return True
        centre, width = first_number(holder.WindowCenter), first_number(holder.WindowWidth)
        narrowest = _NARROWEST.get(str(holder.get("VOILUTFunction") or "LINEAR"), math.inf)
    except _UNREADABLE:
        return False
    return math.isfinite(centre) and math.isfinite(width) and (width > narrowest or width == narrowest == 1)


def _usable_region(region: Dataset) -> bool:
    try:
        *corners, across, down = (float(region[name].value) for name in _REGION)
    except (*_UNREADABLE, KeyError):
        return False
    return all(map(math.isfinite, corners)) and all(0 < abs(10 * d) < _LARGEST_MM for d in (across, down))


def _shown(holder: Dataset, name: str) -> Any:
    try:
        value = holder.get(name)
    except _UNREADABLE:
        return "no number"
    return value if isinstance(value, (int, float, str)) or value is None else "x".join(map(str, value))
