"""`albumentations_config_*.json` of the hub's layout: how a network's images were prepared.

Albumentations' Normalize computes (pixel - mean * m) / (std * m) for pixels of 0..255, with m its
max_pixel_value; for intensities in 0..1, as the contract has them, both are scaled by m / 255.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.records import Fields, Format

FILES = "albumentations_config_*.json"
EVALUATION = "albumentations_config_eval.json"
CONTAINERS = ("Compose", "Sequential")
CHANGE_NOTHING = ("ToTensorV2", "ToTensor3D", "NoOp")
# They say where the image lies in the input; ours is stretched to the size, whatever they did.
GEOMETRY = (
    "Resize", "LongestMaxSize", "SmallestMaxSize", "PadIfNeeded", "Pad", "CenterCrop", "Crop", "RandomCrop",
    "CropAndPad", "RandomResizedCrop",
)  # fmt: skip
_REMEDY = "give --mean, --std and --size, and remove the file if it is not the network's"
_FORMAT = Format(
    "configuration of Albumentations' save_pretrained", _REMEDY, error=InputError, max_bytes=2**20
)
_STEP = Fields(__class_fullname__=str)


@dataclasses.dataclass(frozen=True)
class Transform:
    """mean, std: of the Normalize, for intensities in 0..1, None without one. size: of the Resize (height,
    width), None without one. geometry: names of whatever else moves pixels."""

    file: Path
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    size: tuple[int, int] | None
    geometry: tuple[str, ...]


def read_transforms(folder: Path) -> list[Transform]:
    """Those of a folder; of any but the one for evaluation the normalisation alone is kept.

    Raises InputError for what changes intensities in a way that the contract does not know.
    """
    return [_read(path) for path in sorted(folder.glob(FILES))]


def _read(path: Path) -> Transform:
    top = _FORMAT.read(path, Fields(transform=_STEP))["transform"]
    mean = std = size = None
    geometry = []
    for step in _steps(path, top):
        name = step["__class_fullname__"].rpartition(".")[2]
        if name == "Normalize":
            if mean is not None:
                raise InputError(f"{path}: has two Normalize, expected one: {_REMEDY}")
            mean, std = _normalise(path, step)
        elif path.name != EVALUATION or name in CHANGE_NOTHING:
            continue
        elif name == "Resize":
            size = (_FORMAT.check(step.get("height"), path, int), _FORMAT.check(step.get("width"), path, int))
        elif name in GEOMETRY:
            geometry.append(name)
        else:
            raise InputError(
                f"{path}: has {name}, expected Resize and Normalize, which are all that the input goes "
                f"through here: {_REMEDY}"
            )
    return Transform(path, mean, std, size, tuple(geometry))


def _steps(path: Path, step: dict[str, Any]) -> Iterator[dict[str, Any]]:
    name = step["__class_fullname__"].rpartition(".")[2]
    if name not in CONTAINERS:
        yield step
        return
    for inner in _FORMAT.check(step.get("transforms"), path, [_STEP]):
        yield from _steps(path, inner)


def _normalise(path: Path, step: dict[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    kind, chance, largest = (
        step.get("normalization", "standard"),
        step.get("p", 1.0),
        step.get("max_pixel_value"),
    )
    if kind != "standard" or chance != 1.0:
        raise InputError(
            f"{path}: has Normalize with normalization {kind!r} and p {chance!r}, expected 'standard' and 1, "
            f"since the contract has one mean and std: {_REMEDY}"
        )
    scale = _FORMAT.check(255.0 if largest is None else largest, path, float) / 255
    mean, std = (_numbers(path, step.get(name)) for name in ("mean", "std"))
    return tuple(one * scale for one in mean), tuple(one * scale for one in std)


def _numbers(path: Path, value: Any) -> tuple[float, ...]:
    return tuple(_FORMAT.check(value if isinstance(value, list) else [value], path, [float]))
