"""What `predict` leaves of a prediction: its files are written, read again, and held against it."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from tumorseg_runtime.conformance.guard_rule import Guarded
from tumorseg_runtime.images.frame import Frame
from tumorseg_runtime.processing.postprocess import Lesion

PICTURE_PIXELS = 2**19  # of larger images the masks alone are written: their pictures take seconds
NEAR_MASK = 300  # an overlay's line is as wide as the shorter side over this; docs: `processing.overlay`
LESION = tuple(field.name for field in dataclasses.fields(Lesion))
UInt8Array = npt.NDArray[np.uint8]


class Written(Guarded, Protocol):
    """What is asked of a prediction (`tumorseg_runtime.Prediction`)."""

    frame: Frame
    masks: npt.NDArray[np.bool_]
    lesions: tuple[Lesion, ...]
    own_logits: npt.NDArray[np.float32] | None
    close: float | None

    @property
    def name(self) -> str:
        """The image's name."""

    @property
    def margin(self) -> float | None:
        """Share of the pixels near the threshold."""

    def probabilities(self) -> npt.NDArray[np.float32]:
        """float32 (K, H, W)."""

    def save(self, mask: Path, overlay: Path | None = None) -> None:
        """Write the mask of all classes, and the overlay."""

    def write(
        self, out: Path, name: str, *, overlay: bool, probabilities: bool, durable: bool
    ) -> dict[str, Any]:
        """Write masks and pictures; their names."""

    def to_dict(self) -> dict[str, Any]:
        """Its line in JSON."""


def written_breaches(found: Written, classes: tuple[str, ...]) -> Iterator[str]:
    """What the files and the JSON line of a prediction are not that its masks, lesions and maps say."""
    if (line := found.to_dict()) != (expected := _line(found)):
        wrong = sorted(key for key in {*line, *expected} if line.get(key) != expected.get(key))
        yield f"the JSON line has other {', '.join(wrong)} than the prediction"
    pictures = found.masks[0].size <= PICTURE_PIXELS
    maps = pictures and found.own_logits is not None
    with tempfile.TemporaryDirectory(prefix="tumorseg-written-") as name:
        folder = Path(name)
        written = found.write(folder, "image", overlay=pictures, probabilities=maps, durable=False)
        if tuple(written["masks"]) != classes:
            yield f"masks of {tuple(written['masks'])} were written, expected {classes}"
            return
        for label, mask in zip(classes, found.masks, strict=True):
            yield from _differs(
                folder / written["masks"][label], mask * np.uint8(255), f"the mask of {label}"
            )
        if maps:
            files = [file for file in written["pictures"] if file != written.get("overlay")]
            scaled = np.rint(found.probabilities().astype(np.float64) * 65535).astype(np.uint16)
            if len(files) != len(scaled):
                yield f"{len(files)} probability maps were written, expected {len(scaled)}"
            for file, one in zip(files, scaled, strict=False):
                yield from _differs(folder / file, one, "the probability map", rounding=1)
        if pictures:
            yield from _overlay_breaches(folder / written["overlay"], found)
            found.save(folder / "mask.png", folder / "overlay.png")
            yield from _differs(folder / "mask.png", _picture(found.masks), "the mask of all classes")
            yield from _overlay_breaches(folder / "overlay.png", found)


def _line(found: Written) -> dict[str, Any]:
    height, width = found.masks.shape[1:]
    return {
        "image": found.name,
        "height": height,
        "width": width,
        "margin": found.close if found.own_logits is None else found.margin,
        "spacings": [dataclasses.asdict(spacing) for spacing in found.frame.spacings],
        "sop_instance": found.frame.sop_instance,
        "warnings": list(found.frame.warnings),
        "input_check": None if found.input_check is None else dataclasses.asdict(found.input_check),
        "lesions": [{name: getattr(lesion, name) for name in LESION} for lesion in found.lesions],
    }


def _picture(masks: npt.NDArray[np.bool_]) -> UInt8Array:
    """uint8 (H, W): 255 where any class is."""
    return np.asarray(masks.any(axis=0), np.uint8) * np.uint8(255)


def _read(path: Path) -> npt.NDArray[Any]:
    """Pixels as they lie in the file, B, G, R where it has colours; none where it is no picture."""
    found = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    return np.empty((0, 0), np.uint8) if found is None else np.asarray(found)


def _differs(path: Path, expected: npt.NDArray[Any], what: str, rounding: int = 0) -> Iterator[str]:
    got = _read(path)
    if (got.shape, got.dtype) != (expected.shape, expected.dtype):
        yield f"{what} was written as {got.dtype} {got.shape}, expected {expected.dtype} {expected.shape}"
    elif wrong := int(np.count_nonzero(np.abs(got.astype(np.int64) - expected) > rounding)):
        yield f"{wrong} pixels of {what} differ in its file, expected 0"


def _overlay_breaches(path: Path, found: Written) -> Iterator[str]:
    """Away from the masks an overlay is the image, and inside of them it is tinted."""
    image = found.frame.pixels
    colours = image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
    got, tumour = _read(path)[..., ::-1], _picture(found.masks) > 0
    if got.shape != colours.shape:
        yield f"the overlay was written as {got.shape}, expected {colours.shape}"
        return
    line = 2 * max(1, round(min(tumour.shape) / NEAR_MASK)) + 1
    near = cv2.dilate(_picture(found.masks), np.ones((line, line), np.uint8)).astype(np.bool_)
    changed = (got != colours).any(axis=2)
    if wrong := int(np.count_nonzero(changed & ~near)):
        yield f"{wrong} pixels of the overlay away from the masks are not the image's, expected 0"
    if tumour.any() and not changed[tumour].any():
        yield "the overlay shows nothing of the masks, expected them tinted"
