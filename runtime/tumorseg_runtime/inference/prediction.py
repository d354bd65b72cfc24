"""What goes into a segmenter and what comes out of it."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.files import make_folder
from tumorseg_runtime.images.frame import Frame, WindowedFile
from tumorseg_runtime.images.frames import read_frame
from tumorseg_runtime.images.read import check_image, encode_png, write_png
from tumorseg_runtime.parity.margin import Band
from tumorseg_runtime.processing.input_guard import InputCheck, InputGuard
from tumorseg_runtime.processing.overlay import draw_overlay
from tumorseg_runtime.processing.postprocess import Lesion, close_share, probabilities

Image = npt.NDArray[np.uint8] | str | Path | WindowedFile | Frame


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
    """Masks of one image.

    frame: its name (the path, or 'image <index>' for an array), pixels and spacing.
    masks: bool (K, H, W) at the image's own size, one per class of the contract.
    lesions: connected components of all classes, largest first within a class.
    own_logits: float32 (K, h, w) at the network's own size; None where masks alone came (a deploy form, or
        a GPU that decided).
    contract, band: what `margin` needs to know. close: the margin, where the GPU counted it.
    guard: the bundle's, None where it has none.
    """

    frame: Frame
    masks: npt.NDArray[np.bool_]
    lesions: tuple[Lesion, ...]
    own_logits: npt.NDArray[np.float32] | None
    contract: Contract
    band: Band | None
    close: float | None = None
    guard: InputGuard | None = None

    def __repr__(self) -> str:
        height, width = self.masks.shape[1:]
        return f"<Prediction {self.name}, {width}x{height}, {len(self.lesions)} lesions>"

    def _repr_png_(self) -> bytes:
        """What a notebook shows of it: the overlay."""
        return encode_png(draw_overlay(self.image, self.masks), self.name)

    def save(self, mask: str | Path, overlay: str | Path | None = None) -> None:
        """Write `mask` as PNG, uint8 (H, W): 255 where the pixel belongs to any class, else 0.

        overlay: also the image with the classes tinted and outlined, as PNG, for people.
        Each file is written whole or not at all; raises InputError where it cannot be written.
        """
        write_png(Path(mask), self.mask.astype(np.uint8) * np.uint8(255))
        if overlay is not None:
            write_png(Path(overlay), draw_overlay(self.image, self.masks))

    def write(
        self, out: Path, name: str, *, overlay: bool = True, probabilities: bool = False, durable: bool = True
    ) -> dict[str, Any]:
        """Write what `tumorseg predict` writes of one image into the folder `out`, each file whole or not at
        all: a mask per class, and the pictures asked for. Probabilities are PNG of 16 bits, 65535 is 1.

        Returns the files by kind, relative to `out`: masks (by class), pictures, overlay.
        durable: as in `tumorseg_runtime.core.files`. Raises InputError as `save` and `probabilities`.
        """

        def put(file: str, pixels: Any) -> None:
            make_folder((out / file).parent)
            write_png(out / file, pixels, durable=durable)

        masks, pictures = {}, []
        maps = self.probabilities() if probabilities else None
        for index, (label, mask) in enumerate(zip(self.contract.classes, self.masks, strict=True)):
            part = "" if len(self.contract.classes) == 1 else f"/{label}"
            masks[label] = f"masks{part}/{name}.png"
            put(masks[label], mask.astype(np.uint8) * np.uint8(255))
            if maps is not None:
                pictures.append(f"probabilities{part}/{name}.png")
                put(pictures[-1], np.rint(maps[index] * np.float32(65535)).astype(np.uint16))
        written: dict[str, Any] = {"masks": masks, "pictures": pictures}
        if overlay:
            written["overlay"] = f"overlays/{name}.png"
            pictures.append(written["overlay"])
            put(written["overlay"], draw_overlay(self.image, self.masks))
        return written

    @property
    def name(self) -> str:
        """The path, with '[index]' for one of several frames, or 'image <index>' for an array."""
        return self.frame.name

    @property
    def image(self) -> npt.NDArray[np.uint8]:
        """The pixels that were judged, uint8 (H, W) or (H, W, 3) RGB."""
        return self.frame.pixels

    @property
    def logits(self) -> npt.NDArray[np.float32]:
        """float32 (K, h, w) at the network's own size; raises InputError where masks alone came, from which
        no probability map can be had."""
        if self.own_logits is None:
            raise InputError(
                f"{self.name}: has no logits, probability map or margin: the session gives masks alone; "
                "open a backend that gives logits, such as onnxruntime (on a GPU: logits=True)"
            )
        return self.own_logits

    def probabilities(self) -> npt.NDArray[np.float32]:
        """By the contract's rule and temperature, float32 (K, H, W) at the image's own size; computed at each
        call.

        Raises InputError where there are no logits.
        """
        return probabilities(self.logits, self.contract, *self.masks.shape[1:])

    @functools.cached_property
    def margin(self) -> float | None:
        """Share of the pixels, 0..1, that another backend could decide otherwise: those whose logits lie
        within `band` of another decision (`tumorseg_runtime.parity.margin`); None without a bundle.

        Raises InputError where there are no logits, and no GPU has counted.
        """
        if self.close is not None:
            return self.close
        logits = self.logits
        if self.band is None:
            return None
        height, width = self.masks.shape[1:]
        return close_share(logits, self.contract, height, width, self.band.logits)

    @functools.cached_property
    def input_check(self) -> InputCheck | None:
        """Whether the image looks like those that the network was trained on; None where the bundle has no
        input guard. The masks are the same, whatever it says."""
        return None if self.guard is None else self.guard.check(self.image)

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """bool (H, W): pixels that belong to any class."""
        return np.asarray(self.masks.any(axis=0))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without pixels."""
        height, width = self.masks.shape[1:]
        lesions = [lesion.to_dict() for lesion in self.lesions]
        return {
            "image": self.name,
            "height": height,
            "width": width,
            "margin": self.close if self.own_logits is None else self.margin,
            "spacings": [dataclasses.asdict(spacing) for spacing in self.frame.spacings],
            "sop_instance": self.frame.sop_instance,
            "warnings": list(self.frame.warnings),
            "input_check": None if self.input_check is None else self.input_check.to_dict(),
            "lesions": lesions,
        }


def to_frame(image: Image, name: str) -> Frame:
    """An image in any form that is taken, as a frame; `name` is for an array. Raises InputError."""
    if isinstance(image, Frame):
        return image
    if isinstance(image, (str, Path, WindowedFile)):
        return read_frame(image)
    return Frame(name, check_image(image, name))
