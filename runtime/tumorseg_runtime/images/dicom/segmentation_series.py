"""One DICOM SEG object for a whole series: the masks of all its images, slice by slice through the patient.

A series may hold images of several sizes or frames of reference (a localizer, a second scan): each kind has
an object of its own, since the frames of one share both. Frames lie in the object by their position along the
normal, those of one position, or without any, by instance number.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.dicom.frame_places import FramePlaces
from tumorseg_runtime.images.dicom.read import told
from tumorseg_runtime.images.dicom.segmentation import (
    Maker,
    PackedMasks,
    header_of,
    made_without_masks,
    places_of,
    refused,
)

if TYPE_CHECKING:
    from pydicom import Dataset

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")  # it names a file
_LONGEST_UID = 64
_SAME = ("StudyInstanceUID", "PatientID", "PatientName", "Modality")  # in all images of a series

ReadMasks = Callable[[Path, int], npt.NDArray[np.bool_]]  # of an image's frame: (K, H, W) at its own size


@dataclasses.dataclass(frozen=True)
class SeriesImage:
    """An image of a series.

    series: its Series Instance UID. reference, rows, columns: its frame of reference, '' without one, and its
        size, which all frames of an object share. number: its Instance Number.
    facts: a hash of what is the same in all images of a series.
    """

    path: Path
    series: str
    reference: str
    rows: int
    columns: int
    number: int
    facts: str
    places: FramePlaces

    @classmethod
    def of(cls, path: Path, frames: int) -> SeriesImage:
        """The image of a file; raises InputError for one that no object can be made of."""
        source = header_of(path)
        with told(path, "header"):
            series, reference = (
                str(source.get(name) or "") for name in ("SeriesInstanceUID", "FrameOfReferenceUID")
            )
            number = int(source.get("InstanceNumber") or 0)
            same = [_stored(source, name) for name in _SAME]
        if not _UID.fullmatch(series) or len(series) > _LONGEST_UID:
            raise refused(path, "its Series Instance UID is none", "digits with dots between")
        facts = hashlib.sha256(b"\\".join(same)).hexdigest()
        places = places_of(path, source, frames)
        return cls(path, series, reference, int(source.Rows), int(source.Columns), number, facts, places)


@dataclasses.dataclass(frozen=True)
class SeriesGroup:
    """The images of one object. name: of its file, without an ending: the series', numbered where it has
    several objects."""

    name: str
    images: tuple[SeriesImage, ...]

    @property
    def frames(self) -> int:
        """How many frames its images have."""
        return sum(len(image.places.frames) for image in self.images)


def group_by_series(images: Iterable[SeriesImage]) -> list[SeriesGroup]:
    """One group for each object that is to be made, in the order of their series' first images."""
    found: dict[str, dict[tuple[str, int, int], list[SeriesImage]]] = defaultdict(dict)
    for image in images:
        key = (image.reference, image.rows, image.columns)
        found[image.series].setdefault(key, []).append(image)
    return [
        SeriesGroup(series if number == 1 else f"{series}-{number}", tuple(sorted(kind, key=_instance)))
        for series, kinds in found.items()
        for number, kind in enumerate(kinds.values(), 1)
    ]


def series_of(path: Path) -> str | None:
    """The Series Instance UID of a file that could not be segmented; None where it does not tell."""
    import pydicom

    try:
        with told(path, "header"):
            return str(pydicom.dcmread(path, specific_tags=["SeriesInstanceUID"])["SeriesInstanceUID"].value)
    except InputError:
        return None


def _stored(source: Dataset, name: str) -> bytes:
    """An element's bytes, without padding; a patient's name is compared so and never read."""
    element = source.get_item(name)
    value = element.value if element is not None else None
    data = value if isinstance(value, bytes) else str(value or "").encode("utf-8", "replace")
    return data.strip(b" \0")


def _instance(image: SeriesImage) -> tuple[int, str]:
    return image.number, str(image.path)


def series_segmentation(group: SeriesGroup, maker: Maker, read_masks: ReadMasks) -> bytes:
    """The bytes of the object of a group; raises InputError, with the reason, where none can be made.

    Masks are asked for one frame at a time, and only packed ones are held.
    """
    first = group.images[0]
    for image in group.images[1:]:
        if image.facts != first.facts:
            raise refused(image.path, f"its study, patient or modality is not that of {first.path}", "one")
    seen: dict[str, Path] = {}
    for image in group.images:
        instance = image.places.frames[0].sop_instance
        if instance in seen:
            raise refused(
                image.path, f"its SOP Instance UID is that of {seen[instance]}, too", "one file each"
            )
        seen[instance] = image.path
    every = [(image, frame) for image in group.images for frame in range(len(image.places.frames))]
    places = FramePlaces(tuple(image.places.frames[index] for image, index in every), first.places.placed, [])
    with told(first.path, "geometry"):
        order = places.in_order()
    places = dataclasses.replace(places, frames=tuple(places.frames[index] for index in order))
    source = header_of(every[order[0]][0].path)
    shape = (len(maker.classes), first.rows, first.columns)
    made = made_without_masks(first.path, source, places, maker)
    packed = PackedMasks()
    for image, index in (every[place] for place in order):
        masks = read_masks(image.path, index)
        if masks.shape != shape:
            raise InputError(
                f"{image.path}: its masks have shape {masks.shape}, expected {shape}: begin again"
            )
        packed.add(masks)
    return packed.encode(made)
