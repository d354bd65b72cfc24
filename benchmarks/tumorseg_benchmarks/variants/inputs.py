"""The images that are timed and compared: encoded files in memory, as a device receives them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.read import SUFFIXES, decode_image, encode_png
from tumorseg_runtime.outputs.image_files import list_images
from tumorseg_runtime.parity.reference import FOLDER

if TYPE_CHECKING:
    from tumorseg_train.data.split import Item, Manifest
    from tumorseg_train.networks.run import Run


@dataclasses.dataclass(frozen=True)
class EncodedImage:
    """The bytes of an image file. name: as its source names it, for reports."""

    name: str
    data: bytes

    def pixels(self) -> npt.NDArray[np.uint8]:
        """Decoded: uint8 (H, W) or (H, W, 3) RGB; raises InputError where the bytes are no image."""
        return decode_image(self.data, self.name)

    def to_dict(self) -> dict[str, str | int]:
        """Plain values for JSON: name, SHA-256 and size, without the bytes."""
        return {
            "name": self.name,
            "sha256": hashlib.sha256(self.data).hexdigest(),
            "bytes": len(self.data),
        }


def golden_inputs(bundle: Bundle) -> list[EncodedImage]:
    """The golden images of a bundle, in its order."""
    return [EncodedImage(name, (bundle.root / FOLDER / f"{name}.png").read_bytes()) for name in bundle.golden]


def split_inputs(run: Run, part: str, limit: int) -> list[EncodedImage]:
    """At most `limit` (0: all) images of one part of the run's split, spread evenly over it.

    Raises InputError where the part is empty, or a file is gone or no longer the one that was split.
    """
    from tumorseg_train.data.loader import spread

    manifest = run.manifest()
    items = spread(manifest.part(part), limit)
    if not items:
        raise InputError(f"{run.root}: its split has no {part} images, expected some: choose another part")
    return item_inputs(run, manifest, items)


def item_inputs(run: Run, manifest: Manifest, items: Sequence[Item]) -> list[EncodedImage]:
    """The images of these items; raises InputError where a file is gone or not the one that was split."""
    from tumorseg_train.data.datasets import read_pixels
    from tumorseg_train.layouts.volumes import content_hash, file_of

    inputs = []
    for item in items:
        path = manifest.root / item.image
        if not file_of(path).is_file():
            raise InputError(
                f"{path}: is gone, expected the image that {run.root} was trained beside: "
                "bring the data back, or give other images with --images"
            )
        if content_hash(path) != item.files[item.image]:
            raise InputError(f"{path}: has changed since it was split (SHA-256 differs): train again")
        data = path.read_bytes() if path.suffix.lower() in SUFFIXES else encode_png(read_pixels(path))
        inputs.append(EncodedImage(item.image, data))
    return inputs


def file_inputs(files: Sequence[Path], limit: int) -> list[EncodedImage]:
    """At most `limit` (0: all) images from files and folders, the first ones in the order given."""
    paths = list_images(tuple(files))
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path}: is not a file, expected an image or a folder of images")
    chosen = paths[:limit] if limit else paths
    return [EncodedImage(str(path), path.read_bytes()) for path in chosen]
