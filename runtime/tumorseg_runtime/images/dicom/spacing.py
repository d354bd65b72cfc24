"""How far apart the pixels of a DICOM image lie, as the file says it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tumorseg_runtime.images.dicom.lookup_tables import group_of
from tumorseg_runtime.images.dicom.repair import SPACINGS
from tumorseg_runtime.images.frame import Spacing

if TYPE_CHECKING:
    from pydicom import Dataset

_CENTIMETRES, _TWO_DIMENSIONAL, _TISSUE = 3, 1, 1  # ultrasound regions: units, spatial format, data type


def spacings_of(dataset: Dataset, index: int) -> tuple[Spacing, ...]:
    """Distances in frame `index`, the frame's own before those of the file, the more direct statement first.

    The data set has been through `repair.drop_unusable`.
    """
    measures = group_of(dataset, index, "PixelMeasuresSequence")
    for holder, name in ((measures, "PixelSpacing"), *((dataset, name) for name in SPACINGS)):
        if holder is not None and holder.get(name):
            row, column = (float(value) for value in holder[name].value)
            return (Spacing(row, column, name),)
    regions = []
    for region in dataset.get("SequenceOfUltrasoundRegions") or ():
        units = (region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection"))
        kind = (region.get("RegionSpatialFormat"), region.get("RegionDataType"))
        if units != (_CENTIMETRES, _CENTIMETRES) or kind != (_TWO_DIMENSIONAL, _TISSUE):
            continue
        left, top = int(region.RegionLocationMinX0), int(region.RegionLocationMinY0)
        right, bottom = int(region.RegionLocationMaxX1), int(region.RegionLocationMaxY1)
        if min(left, top) < 0 or right > dataset.Columns or bottom > dataset.Rows:  # one too far is common
            return ()  # the image was resized or cut after this was written: it says nothing about it now
        box = (left, top, right - left + 1, bottom - top + 1)
        row, column = (abs(10 * float(d)) for d in (region.PhysicalDeltaY, region.PhysicalDeltaX))  # cm
        regions.append(Spacing(row, column, "SequenceOfUltrasoundRegions", box))
    return tuple(regions)
