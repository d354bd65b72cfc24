"""The golden images of a bundle: chosen from the run's data, with PyTorch's answer to each."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.files import make_folder, write_bytes
from tumorseg_runtime.core.progress import Tell, silent, told
from tumorseg_runtime.images.read import write_png
from tumorseg_runtime.parity.reference import FOLDER, Golden
from tumorseg_runtime.parity.yardstick import Yardstick, measure_yardstick
from tumorseg_runtime.processing.preprocess import Preprocessor
from tumorseg_train.data.datasets import read_pixels
from tumorseg_train.data.split import Item, Manifest
from tumorseg_train.layouts.volumes import content_hash

if TYPE_CHECKING:
    import torch

FloatArray = npt.NDArray[np.float32]
# A batch of 3 is neither a single image nor the exporter's example of 2: it shows a frozen batch axis.
FEWEST = 3
GOLDEN = 4  # unless told otherwise
UNKNOWN = "unknown"  # label of an image that came without masks


def choose_items(manifest: Manifest, count: int) -> tuple[Item, ...]:
    """`count` items, in turn one of each organ with and without tumour, those of the test part first.

    A small test part is filled up from validation, then training: parity does not ask for unseen images.
    Within a group the images' hashes give the order, so neither names nor neighbours in a folder matter.
    Raises InputError where count is below 3 or above the number of images.
    """
    if count < FEWEST:
        raise InputError(
            f"golden is {count}, expected {FEWEST} or more: "
            "a batch larger than the exporter's example must be proven"
        )
    chosen: list[Item] = []
    for part in ("test", "val", "train"):
        chosen += in_turn(manifest.part(part))
        if len(chosen) >= count:
            return tuple(chosen[:count])
    raise InputError(
        f"golden is {count}, the split holds only {len(chosen)} images: ask for fewer, or bring more"
    )


def in_turn(items: Sequence[Item]) -> list[Item]:
    """The items, in turn one of each organ with and without tumour; within a group by the image's hash."""
    groups: dict[tuple[str, bool], list[Item]] = {}
    for item in sorted(items, key=lambda item: (item.organ, item.tumour_px == 0, item.files[item.image])):
        groups.setdefault((item.organ, item.tumour_px == 0), []).append(item)
    rounds = itertools.zip_longest(*groups.values())
    return [item for one in rounds for item in one if item is not None]


def make_golden(
    model: torch.nn.Module,
    manifest: Manifest,
    items: Sequence[Item],
    contract: Contract,
    tell: Tell = silent,
) -> tuple[Golden, ...]:
    """Pixels, preprocessed tensor and PyTorch's logits (one image at a time, float32) of every item.

    Raises InputError for an image that is missing or is no longer the one in the split.
    """
    import torch

    preprocess = Preprocessor(contract)
    golden = []
    for number, item in enumerate(told(items, tell), 1):
        path = manifest.root / item.image
        pixels = read_pixels(path)
        if content_hash(path) != item.files[item.image]:
            raise InputError(
                f"{path}: has changed since the split was made: restore it, or split and train again"
            )
        tensor = preprocess(pixels, str(path))
        with torch.inference_mode():
            logits = model(torch.from_numpy(tensor)[None])[0].numpy()  # (K, height, width)
        kind = "" if item.label == UNKNOWN else "-tumour" if item.tumour_px else "-none"
        organ = re.sub(r"[^\w-]+", "-", item.organ)  # any name, in the name of a file
        name = f"{number:02d}-{organ}{kind}"
        golden.append(Golden(name, pixels, tensor, np.asarray(logits, np.float32)))
    return tuple(golden)


def noise_in(
    model: torch.nn.Module, images: Sequence[Golden], contract: Contract, tell: Tell = silent
) -> Yardstick:
    """What a grey level of noise in these images does to the network's own masks."""
    import torch

    def infer(batch: FloatArray) -> FloatArray:
        with torch.inference_mode():
            return np.asarray(model(torch.from_numpy(batch)).numpy(), np.float32)

    return measure_yardstick(infer, images, contract, tell)


def write_golden(golden: Sequence[Golden], folder: Path) -> None:
    """Write `golden/<name>.png` and `golden/<name>.npz` into the bundle's folder."""
    make_folder(folder / FOLDER)
    for item in golden:
        write_png(folder / FOLDER / f"{item.name}.png", item.pixels, durable=False)
        arrays = io.BytesIO()
        np.savez_compressed(arrays, tensor=item.tensor, logits=item.logits)
        write_bytes(folder / FOLDER / f"{item.name}.npz", arrays.getvalue(), durable=False)
