"""Golden images for a checkpoint that brings no split: from a dataset, a folder of images, or phantoms.

- a dataset in one of the layouts of docs/data.md: images with and without tumour take turns, as in a run;
- any other folder: its image files at any depth, apart from hidden ones and masks (`*_mask.png`);
- `phantoms`: drawn for the purpose. They show that an artefact computes what PyTorch computes, on images
  that no scanner made.

Of many images, evenly spaced ones are looked at: neighbours in a folder are often slices of one patient.
Every other one is in the part 'test', for golden images, the others in 'val', for calibration.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from tumorseg_export.references.golden_images import UNKNOWN
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.read import SUFFIXES
from tumorseg_train.data.datasets import Sample, find_samples, read_pair, read_pixels
from tumorseg_train.data.phantoms import NOTE, write_phantoms
from tumorseg_train.data.split import Item, Manifest
from tumorseg_train.layouts.known import NoLayoutError
from tumorseg_train.layouts.volumes import content_hash

PHANTOMS = "phantoms"
DRAWN = 24  # phantoms of each organ
LOOKED_AT = 48  # images of each organ and class
_MASK = re.compile(r".*_mask(_\d+)?")

T = TypeVar("T")


def describe(where: str) -> str:
    """`where` in words that hold no path, for `bundle.json`; raises InputError where it is not there."""
    root = Path(where)
    if where == PHANTOMS:
        if root.exists():
            raise InputError(
                f"images is '{PHANTOMS}', which draws phantoms, and there is a folder of that name: "
                f"give ./{PHANTOMS} for the folder, or change to another one for drawn images"
            )
        return "phantoms, drawn for this export"
    if not root.is_dir():
        raise InputError(f"{where}: is not a folder, expected images, or the word {PHANTOMS}: check --images")
    if (root / NOTE).is_file():
        return "phantoms, from a folder"
    return "images of a dataset" if _samples(root) else "images of a folder, tumours unknown"


@contextlib.contextmanager
def open_images(where: str, channels: int, log: Callable[[str], None]) -> Iterator[Manifest]:
    """Open a folder, or draw phantoms for as long as the block runs.

    channels: of the network; for one channel, colour images are left out, and `log` is told how many.
    Raises InputError where there is no usable image or one is damaged.
    """
    if where == PHANTOMS:
        with tempfile.TemporaryDirectory(prefix="tumorseg-phantoms-") as folder:
            root = Path(folder) / PHANTOMS
            write_phantoms(root, brain=DRAWN, breast=DRAWN)
            yield _manifest(root, channels, log)
    else:
        yield _manifest(Path(where), channels, log)


def _manifest(root: Path, channels: int, log: Callable[[str], None]) -> Manifest:
    items = _dataset_items(root, _samples(root)) or _folder_items(root)
    if not items:
        raise InputError(
            f"{root}: holds no images, expected files of {', '.join(SUFFIXES)}: convert them, or choose "
            "another folder with --images"
        )
    if channels == 1:
        gray = [item for item in items if read_pixels(root / item.image).ndim == 2]
        if len(gray) < len(items):
            log(f"{len(items) - len(gray)} colour images are left out: the network takes gray")
        items = gray
    parts = itertools.cycle(("test", "val"))
    return Manifest(root, 0, tuple(dataclasses.replace(item, part=next(parts)) for item in items))


def _samples(root: Path) -> list[Sample]:
    """The images of a dataset in a known layout; none where the folder has another one."""
    try:
        return find_samples(root)
    except NoLayoutError:  # another layout, which is a folder of images for us
        return []


def _dataset_items(root: Path, samples: Sequence[Sample]) -> list[Item]:
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.organ, sample.label), []).append(sample)
    items = []
    for group in groups.values():
        for sample in _evenly(group):
            image, tumour = read_pair(root, sample)
            items.append(
                Item(
                    image=sample.image,
                    masks=sample.masks,
                    organ=sample.organ,
                    label=sample.label,
                    part="test",
                    height=image.shape[0],
                    width=image.shape[1],
                    tumour_px=int(tumour.sum()),
                    files={name: content_hash(root / name) for name in (sample.image, *sample.masks)},
                    tumour=sample.rule.tumour,
                    soft_threshold=sample.rule.soft_threshold,
                )
            )
    return items


def _folder_items(root: Path) -> list[Item]:
    names = sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not _MASK.fullmatch(path.stem)
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
        and path.is_file()
    )
    items = []
    for name in _evenly(names):
        height, width = read_pixels(root / name).shape[:2]
        files = {name: content_hash(root / name)}
        items.append(Item(name, (), "image", UNKNOWN, "test", height, width, 0, files))
    return items


def _evenly(found: Sequence[T]) -> list[T]:
    """At most `LOOKED_AT` of them, evenly spaced."""
    count = min(len(found), LOOKED_AT)
    return [found[index * len(found) // count] for index in range(count)]
