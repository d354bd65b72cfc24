"""Masks as a DICOM segmentation object (SEG), by highdicom (extra 'dicom-seg').

It names the image that the masks belong to (SOP class and instance), has its geometry where the image says
one, a coded segment per class and, as algorithm, the bundle with its hash. DICOM wants patient and study in
it, too: they are copied from the image into this object, and nowhere else.

Source: DICOM PS3.3 A.51 and C.8.20; codes of PS3.16 CID 7151 and 7159, SNOMED CT.
"""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.errors import BackendError, InputError
from tumorseg_runtime.core.files import make_folder, write_bytes
from tumorseg_runtime.images.dicom.read import MAX_FILE_BYTES
from tumorseg_runtime.images.frame import Frame
from tumorseg_runtime.images.read import read_file

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription
    from pydicom import Dataset

_SERIES = 1000  # its number; the UID is new for each object
_LONGEST = 64  # letters of DICOM's VR LO
_CODES = {  # class -> SNOMED CT code and its meaning
    "tumour": ("108369006", "Neoplasm"),
    "tumor": ("108369006", "Neoplasm"),
    "lesion": ("52988006", "Lesion"),
    "mass": ("4147007", "Mass"),
    "necrosis": ("6574001", "Necrosis"),
    "edema": ("79654002", "Edema"),
    "oedema": ("79654002", "Edema"),
}
_NEEDED = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "Rows", "Columns",
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime",
)  # fmt: skip
_GEOMETRY = ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient")


@dataclasses.dataclass(frozen=True)
class Maker:
    """Who made the masks: the bundle's name and SHA-256, tumorseg's version, the classes, and their rule."""

    name: str
    sha256: str
    version: str
    classes: tuple[str, ...]
    rule: str
    threshold: float | None

    def check(self) -> None:
        """Raise BackendError without highdicom, InputError for a class that has no code."""
        try:
            import highdicom  # noqa: F401
        except ModuleNotFoundError as error:
            raise BackendError(
                f"{str(error.name).partition('.')[0]} is not installed, --dicom-seg expects the extra "
                "'dicom-seg': pip install 'tumorseg[dicom-seg]'"
            ) from error
        for name in self.classes:
            if name.casefold() not in _CODES:
                raise InputError(
                    f"class '{name}' has no SNOMED CT code here, --dicom-seg expects one of "
                    f"{', '.join(_CODES)}: export the bundle with such a name, or leave --dicom-seg out"
                )


def encode_segmentation(path: Path, frame: Frame, masks: npt.NDArray[np.bool_], maker: Maker) -> bytes:
    """The bytes of a SEG object for the image of `path`, which `frame` was read from.

    masks: bool (K, H, W) at the image's own size, a binary segment per class, empty ones kept: frame k is
    class k. Raises InputError, with the reason, for a file that is no DICOM image of one frame, that lacks an
    element which the object must copy, or which highdicom does not take.
    """
    import highdicom
    import pydicom

    if frame.sop_instance is None:
        raise _refused(path, "it is no DICOM image with a SOP Instance UID", "one")
    if frame.count != 1:
        raise _refused(path, f"it has {frame.count} frames", "one: highdicom does not reference them")
    data = io.BytesIO(read_file(path, MAX_FILE_BYTES, "a DICOM file", "split it"))
    source = pydicom.dcmread(data, stop_before_pixels=True)
    lacking = [name for name in _NEEDED if name not in source]
    if "FrameOfReferenceUID" in source:  # else the object says no geometry, as its source
        lacking += [name for name in _GEOMETRY if not source.get(name)]
    if lacking:
        raise _refused(path, f"it lacks {', '.join(lacking)}", "them, if need be empty")
    if source.SOPInstanceUID != frame.sop_instance or masks.shape[1:] != (source.Rows, source.Columns):
        raise _refused(path, "it has changed since it was read", "the same")
    try:
        made = highdicom.seg.Segmentation(
            source_images=[source],
            pixel_array=np.ascontiguousarray(np.moveaxis(masks, 0, -1)[None]).astype(np.uint8),
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=_segments(maker),
            series_instance_uid=highdicom.UID(),
            series_number=_SERIES,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="tumorseg",
            manufacturer_model_name=maker.name[:_LONGEST],
            software_versions=maker.version,
            device_serial_number=maker.sha256,
            content_label="SEGMENTATION",
            content_description="Segmented by an algorithm, not reviewed",
            series_description=f"Masks of {maker.name}"[:_LONGEST],
            omit_empty_frames=False,
        )
        if "FrameOfReferenceUID" not in made:  # then the standard wants this one, empty where not known
            made.PatientOrientation = source.get("PatientOrientation")
        return _to_bytes(made)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _refused(path, " ".join(str(error).split()), "an image that highdicom takes") from error


def write_segmentation(target: Path, data: bytes) -> None:
    """Write an encoded object whole or not at all; raises InputError."""
    make_folder(target.parent)
    write_bytes(target, data)


def _segments(maker: Maker) -> list[SegmentDescription]:
    import highdicom
    from highdicom.sr import CodedConcept
    from pydicom.sr.codedict import codes

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=maker.name[:_LONGEST],
        family=codes.cid7162.ArtificialIntelligence,
        version=maker.sha256,  # 64 letters, as many as it may have
        source=f"tumorseg {maker.version}"[:_LONGEST],
        parameters={
            "bundle_sha256": maker.sha256,
            "rule": maker.rule,
            **({} if maker.threshold is None else {"threshold": str(maker.threshold)}),
        },
    )
    return [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=label[:_LONGEST],
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=CodedConcept(code, "SCT", meaning),
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        for number, label in enumerate(maker.classes, 1)
        for code, meaning in [_CODES[label.casefold()]]
    ]


def _to_bytes(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _refused(path: Path, got: str, expected: str) -> InputError:
    return InputError(
        f"{path}: cannot be referenced by a DICOM SEG: {got}, expected {expected}: segment it in a run "
        "without --dicom-seg"
    )
