"""The frames of a multi-frame DICOM image in a SEG object: references, places in the patient, and dimensions.

highdicom makes objects of one frame where there is no frame of reference (highdicom#284). So it is given the
first frame alone, as if that were an image, and what it makes is carried to all frames here: the frame's
number in each reference, its position, orientation and spacing, and an index that tells frames of one place
apart.

Source: DICOM PS3.3 C.7.6.16 (functional groups), C.7.6.17 (dimensions).
"""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

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


@dataclasses.dataclass(frozen=True)
class FramePlaces:
    """Where the frames lie. groups: for each frame its functional groups of geometry, as the image has them.

    placed: whether the image has a frame of reference. lacking: what its geometry then lacks.
    """

    groups: tuple[dict[str, Dataset], ...]
    placed: bool
    lacking: list[str]

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
                if self.placed and self.groups[0][group].get(name):
                    setattr(one, name, self.groups[0][group].get(name))
        return one

    def extend(self, made: Dataset, source: Dataset) -> None:
        """Carry an object of the first frame alone to all frames: of frame n the segments, then of n + 1."""
        segments = list(made.PerFrameFunctionalGroupsSequence)
        (shared,) = made.SharedFunctionalGroupsSequence
        everywhere = {
            name: self.placed and all(groups[name] == self.groups[0][name] for groups in self.groups)
            for name in (_ORIENTATION, _MEASURES)
        }
        for name, same in everywhere.items():
            if self.placed:
                setattr(shared, name, [copy.deepcopy(self.groups[0][name])])
            if name in shared and not same:
                delattr(shared, name)
        ranks, times = self._ranks(), self._times()
        if any(time > 1 for time in times):
            made.DimensionIndexSequence.append(_time_dimension(made.DimensionIndexSequence[0]))
        items = []
        for index, (groups, rank, time) in enumerate(zip(self.groups, ranks, times, strict=True)):
            for segment in segments:
                item = copy.deepcopy(segment)
                for origin in item.DerivationImageSequence[0].SourceImageSequence:
                    origin.ReferencedFrameNumber = index + 1
                content = item.FrameContentSequence[0]
                values = [_first(content.DimensionIndexValues)]  # the segment's
                if self.placed:
                    values.append(rank)
                    item.PlanePositionSequence = [copy.deepcopy(groups[_POSITION])]
                    for name, same in everywhere.items():
                        if not same:
                            setattr(item, name, [copy.deepcopy(groups[name])])
                if len(made.DimensionIndexSequence) > len(values):
                    values.append(time)
                    content.TemporalPositionIndex = time
                content.DimensionIndexValues = values
                items.append(item)
        made.PerFrameFunctionalGroupsSequence = items
        made.NumberOfFrames = len(items)
        if "DimensionOrganizationType" in made:  # of one frame; of these not known
            del made.DimensionOrganizationType
        _rename(made, str(source.SOPClassUID))

    def _ranks(self) -> list[int]:
        """Of each frame the rank, from 1, of its position along the normal of the first frame."""
        if not self.placed:
            return [1] * len(self.groups)
        turn = np.array(self.groups[0][_ORIENTATION].ImageOrientationPatient, np.float64).reshape(2, 3)
        normal = np.cross(*turn)
        places = [tuple(map(float, groups[_POSITION].ImagePositionPatient)) for groups in self.groups]
        order = sorted(set(places), key=lambda place: (float(normal @ place), place))
        return [order.index(place) + 1 for place in places]

    def _times(self) -> list[int]:
        """Of each frame how many, with it, have had its position so far."""
        seen: dict[int, int] = {}
        times = []
        for rank in self._ranks():
            seen[rank] = seen.get(rank, 0) + 1
            times.append(seen[rank])
        return times


def places_of(source: Dataset, count: int) -> FramePlaces:
    """The places of an image's frames."""
    placed = "FrameOfReferenceUID" in source
    found: list[dict[str, Any]] = []
    lacking: list[str] = []
    for index in range(count):
        groups = {name: group_of(source, index, name) for name in _GROUPS}
        for name, elements in _GROUPS.items():
            group = groups[name]
            if placed and (group is None or not group.get(elements[0])) and elements[0] not in lacking:
                lacking.append(elements[0])
        found.append(groups)
    return FramePlaces(tuple(found), placed, lacking)


def _time_dimension(other: Dataset) -> Dataset:
    """The dimension that tells frames of one position apart, of the organisation of another dimension."""
    item = copy.deepcopy(other)
    _, item.DimensionIndexPointer, item.FunctionalGroupPointer = _TIME
    item.DimensionDescriptionLabel = "Temporal Position Index"
    return item


def _rename(made: Dataset, sop_class: str) -> None:
    """References say the image's SOP class, and not that of its first frame alone."""

    def rename(dataset: Dataset, element: Any) -> None:
        if element.keyword == "ReferencedSOPClassUID" and element.value == _CAPTURE:
            element.value = sop_class

    made.walk(rename)


def _first(values: Any) -> int:
    return int(values) if isinstance(values, (int, float, str)) else int(values[0])
