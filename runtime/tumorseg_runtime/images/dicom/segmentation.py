"""Masks as a DICOM segmentation object (SEG), by highdicom (extra 'dicom-seg').

It names the image that the masks belong to (SOP class, instance and frames), has its geometry where the image
says one, a coded segment per class and, as algorithm, the bundle with its hash. DICOM wants patient and study
in it, too: they are copied from the image into this object, and nowhere else.

Source: DICOM PS3.3 A.51 and C.8.20; codes of PS3.16 CID 7151 and 7159, SNOMED CT.
"""

from __future__ import annotations

import dataclasses
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.errors import BackendError, InputError
from tumorseg_runtime.core.files import make_folder, write_bytes
from tumorseg_runtime.images.dicom.frame_places import FramePlaces
from tumorseg_runtime.images.dicom.read import MAX_FILE_BYTES, told
from tumorseg_runtime.images.frame import Frame
from tumorseg_runtime.images.read import read_file

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription
    from pydicom import Dataset

    from tumorseg_runtime.bundle.bundle import Bundle

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


@dataclasses.dataclass(frozen=True)
class Maker:
    """Who made the masks: the bundle's name and SHA-256, tumorseg's version, the classes, and their rule."""

    name: str
    sha256: str
    version: str
    classes: tuple[str, ...]
    rule: str
    threshold: float | None

    @classmethod
    def of(cls, bundle: Bundle, version: str) -> Maker:
        """A bundle, and tumorseg's version."""
        contract = bundle.contract
        return cls(bundle.name, bundle.digest(), version, contract.classes, contract.rule, contract.threshold)

    def check(self) -> None:
        """Raise BackendError without highdicom, InputError for a class that has no code."""
        try:
            import highdicom  # noqa: F401
        except ModuleNotFoundError as error:
            raise BackendError(
                f"{str(error.name).partition('.')[0]} is not installed, DICOM SEG objects expect the extra "
                "'dicom-seg': pip install 'tumorseg[dicom-seg]'"
            ) from error
        for name in self.classes:
            if name.casefold() not in _CODES:
                raise InputError(
                    f"class '{name}' has no SNOMED CT code here, DICOM SEG objects expect one of "
                    f"{', '.join(_CODES)}: export the bundle with such a name, or write no objects"
                )


class PackedMasks:
    """Masks as the bits of an object's pixel data: frames follow one another without a gap."""

    def __init__(self) -> None:
        self._packed, self._rest = bytearray(), np.zeros(0, np.bool_)

    def add(self, masks: npt.NDArray[np.bool_]) -> None:
        """bool (K, H, W): a frame of the object for each class."""
        bits = np.concatenate((self._rest, masks.ravel()))
        whole = bits.size // 8 * 8
        self._packed += np.packbits(bits[:whole], bitorder="little").tobytes()
        self._rest = bits[whole:]

    def encode(self, made: Dataset) -> bytes:
        """The bytes of an object that has these masks."""
        data = bytes(self._packed) + np.packbits(self._rest, bitorder="little").tobytes()
        made.PixelData = data + b"\0" * (len(data) % 2)
        buffer = io.BytesIO()
        made.save_as(buffer, enforce_file_format=True)
        return buffer.getvalue()


class SegmentationBuilder:
    """A SEG object of one image file, to which the masks of its frames are added in their order.

    Nothing but the packed masks is held. Raises InputError, with the reason, for a file that is no DICOM
    image, that lacks an element which the object must copy, or which highdicom does not take.
    """

    def __init__(self, path: Path, frame: Frame, maker: Maker) -> None:
        self._path, self._instance = path, frame.sop_instance
        if frame.sop_instance is None:
            raise refused(path, "it is no DICOM image with a SOP Instance UID", "one")
        source = header_of(path)
        self._made = made_without_masks(path, source, places_of(path, source, frame.count), maker)
        self._shape = (len(maker.classes), source.Rows, source.Columns)
        self._masks, self._next = PackedMasks(), 0

    def add(self, frame: Frame, masks: npt.NDArray[np.bool_]) -> None:
        """The masks of the next frame: bool (K, H, W) at the image's own size, a binary segment per class,
        empty ones kept. Raises InputError where the file is not the one that was begun with."""
        if (frame.sop_instance, frame.index, masks.shape) != (self._instance, self._next, self._shape):
            raise refused(self._path, "it has changed since it was read", "the same")
        self._masks.add(masks)
        self._next += 1

    def encode(self) -> bytes:
        """The bytes of the object, when all frames were added."""
        return self._masks.encode(self._made)


def header_of(path: Path) -> Dataset:
    """All of a DICOM image but its pixels; raises InputError where it lacks what an object must copy."""
    import pydicom

    data = io.BytesIO(read_file(path, MAX_FILE_BYTES, "a DICOM file", "split it"))
    with told(path, "header"):
        source = pydicom.dcmread(data, stop_before_pixels=True)
        lacking = [name for name in _NEEDED if name not in source]
    if lacking:
        raise refused(path, f"it lacks {', '.join(lacking)}", "them, if need be empty")
    return source


def places_of(path: Path, source: Dataset, count: int) -> FramePlaces:
    """The places of an image's frames; raises InputError where their geometry lacks an element."""
    with told(path, "header"):
        places = FramePlaces.of(source, count)
    if places.lacking:
        raise refused(path, f"it lacks {', '.join(places.lacking)}", "them where it has a frame of reference")
    return places


def made_without_masks(path: Path, source: Dataset, places: FramePlaces, maker: Maker) -> Dataset:
    """An object for frames of an image, or of a series that it belongs to, which still lacks the pixels.

    Raises InputError for what highdicom does not take.
    """
    try:
        made = _one_frame(
            places.first_alone(source), (len(maker.classes), source.Rows, source.Columns), maker
        )
        places.extend(made)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise refused(path, " ".join(str(error).split()), "an image that highdicom takes") from error
    return made


def _one_frame(source: Dataset, shape: tuple[int, int, int], maker: Maker) -> Dataset:
    """An object of empty masks for an image of one frame; raises whatever highdicom does."""
    import highdicom

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="highdicom")  # of names, which it quotes
        made: Dataset = highdicom.seg.Segmentation(
            source_images=[source],
            pixel_array=np.zeros((1, *shape[1:], shape[0]), np.uint8),
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
    return made


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


def refused(path: Path, got: str, expected: str) -> InputError:
    """The error of an image that no object can be made of."""
    return InputError(
        f"{path}: cannot be referenced by a DICOM SEG: {got}, expected {expected}: segment it in a run "
        "without --dicom-seg and --series-seg"
    )
