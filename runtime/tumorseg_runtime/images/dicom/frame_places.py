"""The frames of DICOM images in a SEG object: references, places in the patient, and dimensions.

highdicom makes objects of one frame where there is no frame of reference (highdicom#284). So it is given the
first frame alone, as if that were an image, and what it makes is carried to all frames here: the image and
the frame's number in each reference, its position, orientation and spacing, and an index that tells frames of
one place apart.

Source: DICOM PS3.3 C.7.6.16 (functional groups), C.7.6.17 (dimensions).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.images.dicom.lookup_tables import group_of

if TYPE_CHECKING:
    from pydicom import Dataset

_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # an image of one frame of which no geometry is demanded
_GROUPS = {  # functional group -> what of it an image of one frame has at its top level
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness"),
}
_OF_FRAMES = (
    "SOPClassUID", "NumberOfFrames", "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence",
)  # fmt: skip  # of a multi-frame image alone
_POSITION, _ORIENTATION, _MEASURES = _GROUPS
_TIME = ("TemporalPositionIndex", 0x00209128, 0x00209111)  # name, tag, tag of its group (frame content)
_EVEN = 0.01  # of the distance between slices, by which one may lie elsewhere


@dataclasses.dataclass(frozen=True)
class FramePlace:
    """A frame that masks belong to. number: in its image, from 1; None in an image of one frame.

    groups: its functional groups of geometry, as the image has them; None for one that it lacks.
    """

    sop_class: str
    sop_instance: str
    number: int | None
    groups: dict[str, Any]

    def refer(self, reference: Dataset) -> None:
        """Make a reference to an image one to this frame."""
        reference.ReferencedSOPClassUID = self.sop_class
        reference.ReferencedSOPInstanceUID = self.sop_instance
        if self.number is not None:
            reference.ReferencedFrameNumber = self.number


@dataclasses.dataclass(frozen=True)
class FramePlaces:
    """Where frames lie. placed: in a frame of reference. lacking: elements that their geometry lacks."""

    frames: tuple[FramePlace, ...]
    placed: bool
    lacking: list[str]

    @classmethod
    def of(cls, source: Dataset, count: int) -> FramePlaces:
        """The places of an image's frames."""
        placed = "FrameOfReferenceUID" in source
        several = count > 1 or "PerFrameFunctionalGroupsSequence" in source
        frames = []
        for index in range(count):
            groups = {
                name: group_of(source, index, name) if several else _top_level(source, elements)
                for name, elements in _GROUPS.items()
            }
            number = index + 1 if several else None
            frames.append(FramePlace(str(source.SOPClassUID), str(source.SOPInstanceUID), number, groups))
        lacking = [
            elements[0]
            for name, elements in _GROUPS.items()
            if placed and not all(one.groups[name] and one.groups[name].get(elements[0]) for one in frames)
        ]
        return cls(tuple(frames), placed, lacking)

    def in_order(self) -> list[int]:
        """The frames' indices by their positions along the normal; frames of one place as they came."""
        ranks = self._ranks()
        return sorted(range(len(ranks)), key=ranks.__getitem__)

    def first_alone(self, source: Dataset) -> Dataset:
        """The first frame as an image of one frame, without pixels."""
        from pydicom import Dataset

        one = Dataset()
        for element in source:
            if element.keyword not in _OF_FRAMES:
                one.add(copy.copy(element))
        one.SOPClassUID = _CAPTURE
        for group, names in _GROUPS.items():
            for name in names:
                if self.placed and self.frames[0].groups[group].get(name):
                    setattr(one, name, self.frames[0].groups[group].get(name))
        return one

    def extend(self, made: Dataset) -> None:
        """Carry an object of the first frame alone to all frames: of frame n the segments, then of n + 1."""
        segments = list(made.PerFrameFunctionalGroupsSequence)
        (shared,) = made.SharedFunctionalGroupsSequence
        first = self.frames[0].groups
        everywhere = {
            name: self.placed and all(frame.groups[name] == first[name] for frame in self.frames)
            for name in (_ORIENTATION, _MEASURES)
        }
        for name, same in everywhere.items():
            if self.placed:
                setattr(shared, name, [copy.deepcopy(first[name])])
            if name in shared and not same:
                delattr(shared, name)
        ranks, times = self._ranks(), self._times()
        if everywhere[_MEASURES] and everywhere[_ORIENTATION] and (distance := self._distance(ranks)):
            shared.PixelMeasuresSequence[0].SpacingBetweenSlices = distance
        if any(time > 1 for time in times):
            made.DimensionIndexSequence.append(_time_dimension(made.DimensionIndexSequence[0]))
        items = []
        for frame, rank, time in zip(self.frames, ranks, times, strict=True):
            for segment in segments:
                item = copy.deepcopy(segment)
                for origin in item.DerivationImageSequence[0].SourceImageSequence:
                    frame.refer(origin)
                content = item.FrameContentSequence[0]
                values = [_first(content.DimensionIndexValues)]  # the segment's
                if self.placed:
                    values.append(rank)
                    item.PlanePositionSequence = [copy.deepcopy(frame.groups[_POSITION])]
                    for name, same in everywhere.items():
                        if not same:
                            setattr(item, name, [copy.deepcopy(frame.groups[name])])
                if len(made.DimensionIndexSequence) > len(values):
                    values.append(time)
                    content.TemporalPositionIndex = time
                content.DimensionIndexValues = values
                items.append(item)
        made.PerFrameFunctionalGroupsSequence = items
        made.NumberOfFrames = len(items)
        if "DimensionOrganizationType" in made:  # of one frame; of these not known
            del made.DimensionOrganizationType
        (series,) = made.ReferencedSeriesSequence
        (instance,) = series.ReferencedInstanceSequence
        series.ReferencedInstanceSequence = [
            _reference(instance, frame) for frame in {one.sop_instance: one for one in self.frames}.values()
        ]

    def _along(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The frames' positions (N, 3), and how far each lies along the normal of the first frame."""
        turn = np.array(self.frames[0].groups[_ORIENTATION].ImageOrientationPatient, np.float64)
        places = np.array([one.groups[_POSITION].ImagePositionPatient for one in self.frames], np.float64)
        return places, places @ np.cross(*turn.reshape(2, 3))

    def _ranks(self) -> list[int]:
        """Of each frame the rank, from 1, of its position along the normal of the first frame."""
        if not self.placed:
            return [1] * len(self.frames)
        places, along = self._along()
        keys = [(float(height), *map(float, place)) for height, place in zip(along, places, strict=True)]
        ranks = {key: rank for rank, key in enumerate(sorted(set(keys)), 1)}
        return [ranks[key] for key in keys]

    def _times(self) -> list[int]:
        """Of each frame how many, with it, have had its position so far."""
        seen: dict[int, int] = {}
        times = []
        for rank in self._ranks():
            seen[rank] = seen.get(rank, 0) + 1
            times.append(seen[rank])
        return times

    def _distance(self, ranks: Sequence[int]) -> float | None:
        """From slice to slice in mm, where no image says it and they lie evenly, straight on one another."""
        if self.frames[0].groups[_MEASURES].get("SpacingBetweenSlices") or max(ranks) == 1:
            return None
        places, along = self._along()
        _, once = np.unique(ranks, return_index=True)
        steps = np.diff(places[once], axis=0)
        heights = np.diff(along[once])
        mean = float(heights.mean())
        straight = np.sqrt(np.maximum((steps**2).sum(axis=1) - heights**2, 0)).max() <= _EVEN * mean
        even = np.abs(heights - mean).max() <= _EVEN * mean
        return float(f"{mean:.10g}") if straight and even else None  # as many letters as a DS may have


def _top_level(source: Dataset, elements: tuple[str, ...]) -> Dataset | None:
    """A functional group of an image of one frame; None where it lacks the first of its elements."""
    from pydicom import Dataset

    if not source.get(elements[0]):
        return None
    group = Dataset()
    for name in elements:
        if source.get(name):
            group.add(copy.copy(source[name]))
    return group


def _reference(other: Dataset, frame: FramePlace) -> Dataset:
    """A reference to the frame's whole image, made of that to another."""
    item = copy.deepcopy(other)
    dataclasses.replace(frame, number=None).refer(item)
    return item


def _time_dimension(other: Dataset) -> Dataset:
    """The dimension that tells frames of one position apart, of the organisation of another dimension."""
    item = copy.deepcopy(other)
    _, item.DimensionIndexPointer, item.FunctionalGroupPointer = _TIME
    item.DimensionDescriptionLabel = "Temporal Position Index"
    return item


def _first(values: Any) -> int:
    return int(values) if isinstance(values, (int, float, str)) else int(values[0])
