"""Gray DICOM values to 0..255: rescaling, then the window or table. The rules stand in `dicom.read`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.dicom.tables import gray_table, palette

if TYPE_CHECKING:
    from pydicom import Dataset

FloatArray = npt.NDArray[np.float64]
Span = tuple[float, float]  # the values, in the modality's unit, that become 0 and 255


def gray_to_uint8(
    stored: npt.NDArray[Any], dataset: Dataset, index: int, span: Span | None = None
) -> npt.NDArray[np.uint8]:
    """Stored values (H, W) of frame `index` -> uint8 (H, W); MONOCHROME1 is inverted.

    span: in place of the frame's own minimum and maximum, where those are its window.
    """
    inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
    values, rescaled = _rescale(stored, dataset, index)
    voi = group_of(dataset, index, "FrameVOILUTSequence") or dataset
    black = np.zeros(stored.shape, np.bool_)
    if voi.get("VOILUTSequence"):
        gray = _to_255(*_by_table(values, voi, _can_be_negative(dataset, index)))
    elif voi.get("WindowCenter") not in (None, "") and voi.get("WindowWidth") not in (None, ""):
        centre, width = first_number(voi.WindowCenter), first_number(voi.WindowWidth)
        gray = _to_255(window(values, centre, width, str(voi.get("VOILUTFunction") or "LINEAR")), 1.0)
    elif not rescaled and _is_shown_as_it_is(dataset):
        gray = _to_255(values, 2**dataset.BitsStored - 1)
    else:
        black = _padding(stored, dataset)
        low, high = span or _extremes(values[~black]) or (0, 0)
        gray = _to_255((values - low) / (high - low) if low < high else np.zeros(values.shape), 1.0)
    if inverted:
        gray = 255 - gray
    gray[black] = 0
    return gray


def span_of(stored: npt.NDArray[Any], dataset: Dataset, index: int) -> Span | None:
    """The minimum and maximum of a gray frame, padding left out; None where they are not its window."""
    values, rescaled = _rescale(stored, dataset, index)
    voi = group_of(dataset, index, "FrameVOILUTSequence") or dataset
    said = voi.get("VOILUTSequence") or all(
        voi.get(name) not in (None, "") for name in ("WindowCenter", "WindowWidth")
    )
    if said or (not rescaled and _is_shown_as_it_is(dataset)):
        return None
    return _extremes(values[~_padding(stored, dataset)])


def palette_to_uint8(stored: npt.NDArray[Any], dataset: Dataset) -> npt.NDArray[np.uint8]:
    """Stored values (H, W) -> uint8 (H, W, 3) through the palette, from 0..its largest possible entry."""
    tables, largest = palette(dataset)
    channels = [table.look_up(stored).astype(np.float64) for table in tables]
    return _to_255(np.stack(channels, axis=-1), float(largest))


def window(values: FloatArray, centre: float, width: float, function: str) -> FloatArray:
    """Window level and width as DICOM defines them (PS3.3 C.11.2.1.2 and C.11.2.1.3), to 0..1.

    function: LINEAR, LINEAR_EXACT or SIGMOID; width: as `repair` lets it pass.
    """
    if function == "LINEAR":
        if width == 1:
            return (values > centre - 0.5).astype(np.float64)
        return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0, 1)
    return np.asarray(0.5 * (1 + np.tanh(2 * (values - centre) / width)))  # 1 / (1 + exp(-4x))


def group_of(dataset: Dataset, index: int, name: str) -> Dataset | None:
    """A functional group of an enhanced multi-frame file: the frame's own, else the one for all frames."""
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for groups in (*frames[index : index + 1], *shared[:1]):
        if groups.get(name):
            group: Dataset = groups[name].value[0]
            return group
    return None


def first_number(value: Any) -> float:
    """The first of one or several values."""
    return float(value) if isinstance(value, (int, float, str)) else float(value[0])


def _is_shown_as_it_is(dataset: Dataset) -> bool:
    return bool(dataset.PixelRepresentation == 0 and dataset.BitsStored <= 8)


def _extremes(values: FloatArray) -> Span | None:
    return (float(values.min()), float(values.max())) if values.size else None


def _rescale(stored: npt.NDArray[Any], dataset: Dataset, index: int) -> tuple[FloatArray, bool]:
    """Values in the modality's unit, and whether they differ from the stored ones."""
    if dataset.get("ModalityLUTSequence"):
        table = gray_table(dataset.ModalityLUTSequence[0], signed=dataset.PixelRepresentation == 1)
        return table.look_up(stored).astype(np.float64), True
    slope, intercept = _slope_and_intercept(dataset, index)
    return stored.astype(np.float64) * slope + intercept, (slope, intercept) != (1, 0)


def _slope_and_intercept(dataset: Dataset, index: int) -> tuple[float, float]:
    holder = group_of(dataset, index, "PixelValueTransformationSequence") or dataset
    slope, intercept = holder.get("RescaleSlope"), holder.get("RescaleIntercept")
    if slope in (None, "") or intercept in (None, ""):
        return 1.0, 0.0
    if not float(slope):
        raise InputError("has RescaleSlope 0, expected another number: correct the file")
    return float(slope), float(intercept)


def _can_be_negative(dataset: Dataset, index: int) -> bool:
    """Whether the header allows negative values in the modality's unit."""
    if dataset.get("ModalityLUTSequence"):
        return False
    slope, intercept = _slope_and_intercept(dataset, index)
    lowest = -(2 ** (dataset.BitsStored - 1)) if dataset.PixelRepresentation == 1 else 0
    return bool(min(slope * lowest, slope * (lowest + 2**dataset.BitsStored - 1)) + intercept < 0)


def _by_table(values: FloatArray, voi: Dataset, signed: bool) -> tuple[FloatArray, float]:
    """Values through the first VOI table, and the table's largest possible value.

    signed: whether the values can be negative.
    """
    table = gray_table(voi.VOILUTSequence[0], signed=signed)
    return table.look_up(values).astype(np.float64), 2.0**table.bits - 1


def _padding(stored: npt.NDArray[Any], dataset: Dataset) -> npt.NDArray[np.bool_]:
    """True where a pixel is padding around the image, not a part of it."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, np.bool_)
    limit = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((int(value), int(value if limit is None else limit)))
    return np.asarray((stored >= low) & (stored <= high))


def _to_255(values: FloatArray, largest: float) -> npt.NDArray[np.uint8]:
    """0..largest to 0..255, half to even."""
    return np.rint(np.clip(values * (255 / largest), 0, 255)).astype(np.uint8)
