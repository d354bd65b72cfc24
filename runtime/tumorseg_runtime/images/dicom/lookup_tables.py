"""Gray DICOM values to 0..255: rescaling, then the window. The rules stand in `dicom`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset

FloatArray = npt.NDArray[np.float64]


def gray_to_uint8(stored: npt.NDArray[Any], dataset: Dataset, index: int) -> npt.NDArray[np.uint8]:
    """Stored values (H, W) of frame `index` -> uint8 (H, W); not inverted yet for MONOCHROME1."""
    values, rescaled = _rescale(stored, dataset, index)
    voi = group_of(dataset, index, "FrameVOILUTSequence") or dataset
    if voi.get("VOILUTSequence"):
        return _to_255(*_by_table(values, voi))
    if voi.get("WindowCenter") not in (None, "") and voi.get("WindowWidth") not in (None, ""):
        centre, width = _first(voi.WindowCenter), _first(voi.WindowWidth)
        return _to_255(window(values, centre, width, str(voi.get("VOILUTFunction") or "LINEAR")), 1.0)
    if not rescaled and dataset.PixelRepresentation == 0 and dataset.BitsStored <= 8:
        return _to_255(values, 2**dataset.BitsStored - 1)
    padding = _padding(stored, dataset)
    inside = values[~padding]
    if not inside.size or inside.min() == inside.max():
        return np.zeros(values.shape, np.uint8)
    spread = (values - inside.min()) / (inside.max() - inside.min())
    spread[padding] = 0
    return _to_255(spread, 1.0)


def window(values: FloatArray, centre: float, width: float, function: str) -> FloatArray:
    """Window level and width as DICOM defines them (PS3.3 C.11.2.1.2 and C.11.2.1.3), to 0..1."""
    if function == "LINEAR":
        if not width >= 1:
            raise InputError(f"has a window {width} wide, expected at least 1: correct the file")
        if width == 1:
            return (values > centre - 0.5).astype(np.float64)
        return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
    if not width > 0:
        raise InputError(f"has a window {width} wide, expected more than 0: correct the file")
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0, 1)
    if function == "SIGMOID":
        return np.asarray(0.5 * (1 + np.tanh(2 * (values - centre) / width)))  # 1 / (1 + exp(-4x))
    raise InputError(f"has the window function {function}, expected LINEAR, LINEAR_EXACT or SIGMOID")


def group_of(dataset: Dataset, index: int, name: str) -> Dataset | None:
    """A functional group of an enhanced multi-frame file: the frame's own, else the one for all frames."""
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for groups in (*frames[index : index + 1], *shared[:1]):
        if groups.get(name):
            group: Dataset = groups[name].value[0]
            return group
    return None


def _rescale(stored: npt.NDArray[Any], dataset: Dataset, index: int) -> tuple[FloatArray, bool]:
    """Values in the modality's unit, and whether they differ from the stored ones."""
    if dataset.get("ModalityLUTSequence"):
        from pydicom.pixels.processing import apply_modality_lut

        return apply_modality_lut(stored, dataset).astype(np.float64), True
    holder = group_of(dataset, index, "PixelValueTransformationSequence") or dataset
    slope, intercept = holder.get("RescaleSlope"), holder.get("RescaleIntercept")
    values = stored.astype(np.float64)
    if slope in (None, "") or intercept in (None, ""):
        return values, False
    if not float(slope):
        raise InputError("has RescaleSlope 0, expected another number: correct the file")
    return values * float(slope) + float(intercept), (float(slope), float(intercept)) != (1, 0)


def _by_table(values: FloatArray, voi: Dataset) -> tuple[FloatArray, float]:
    """Values through the first VOI table, and the table's largest possible value."""
    from pydicom.pixels.processing import apply_voi

    bits = int(voi.VOILUTSequence[0].LUTDescriptor[2])
    looked_up = apply_voi(np.rint(values).astype(np.int64), voi)
    return looked_up.astype(np.float64), 2.0**bits - 1


def _padding(stored: npt.NDArray[Any], dataset: Dataset) -> npt.NDArray[np.bool_]:
    """True where a pixel is padding around the image, not a part of it."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, np.bool_)
    limit = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((int(value), int(value if limit is None else limit)))
    return np.asarray((stored >= low) & (stored <= high))


def _first(value: Any) -> float:
    """The first of one or several values."""
    return float(value) if isinstance(value, (int, float, str)) else float(value[0])


def _to_255(values: FloatArray, largest: float) -> npt.NDArray[np.uint8]:
    """0..largest to 0..255, half to even."""
    return np.rint(np.clip(values * (255 / largest), 0, 255)).astype(np.uint8)
