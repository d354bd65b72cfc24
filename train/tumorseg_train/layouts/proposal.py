"""What a folder's names say of the dataset in it: the declaration that `tumorseg data import` proposes.

Folders of masks are known by their names (masks, labels, seg, ...), or masks lie beside their images under
names such as `1_mask`. The organ is never guessed from pixels: a folder's name says it, or the user does.
"""

from __future__ import annotations

import dataclasses
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.nifti.names import stem_of
from tumorseg_train.layouts.declaration import FOLDER, Declaration, declare
from tumorseg_train.layouts.known import BUSI_NAME, CLASSES, find_layouts
from tumorseg_train.layouts.name_patterns import key_of
from tumorseg_train.layouts.pairing import MASK_WORDS, better_pairing, expand, find_pairs, image_files

ORGANS = {
    "brain": ("brain", "brats", "glioma", "glioblastoma", "meningioma", "lgg", "kaggle_3m", "tcga"),
    "breast": ("breast", "busi", "mammo"),
    **{
        organ: (organ,)
        for organ in ("liver", "lung", "kidney", "pancreas", "prostate", "thyroid", "colon", "skin", "spleen")
    },
}
MASK_FOLDERS = (
    "mask", "label", "seg", "segmentation", "gt", "ground_truth", "groundtruth", "ground truth", "annotation",
    "annot", "lesion", "truth", "target",
)  # fmt: skip
IMAGE_FOLDERS = ("image", "img", "frame", "original", "scan", "slice", "input", "picture", "data", "raw")
SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing")
NUMBERED = 120  # images with numbers for names from which on neighbours are kept together: three blocks
_JUNK = ("__MACOSX",)

Parts = tuple[str, ...]


def propose(root: Path, given: dict[str, Any]) -> tuple[Declaration, ...]:
    """The datasets under `root`. given: fields of a declaration that the user names; they stand.

    Raises InputError where the names do not say which files are masks or what the organ is.
    """
    if "images" in given:
        found = [_Guess(given["images"], given.get("masks", given["images"]))]
    else:
        known = _known(root)
        if known and not set(given) - {"organ", "tumour", "soft_threshold"}:
            return tuple(declare({**_values(one), **given}, root) for one in known)
        found = _guesses(root, given.get("masks"))
    if not found:
        raise InputError(
            f"{root}: its names do not tell masks from images ({_there(root)}): name them by --images FOLDER "
            "--masks FOLDER --pairing 'IMAGE=MASK', such as '*=*_seg' (docs/data.md)"
        )
    return tuple(_completed(root, guess, given) for guess in found)


@dataclasses.dataclass(frozen=True)
class _Guess:
    images: str
    masks: str


def _known(root: Path) -> tuple[Declaration, ...]:
    try:
        layouts = find_layouts(root)
    except InputError:  # an unknown layout, or one that does not say the organ: the names may tell more
        return ()
    if any(layout.slices for layout in layouts):
        raise InputError(
            f"{root}: holds the brain slices' .mat files, which say all of themselves: declare nothing"
        )
    return tuple(one for layout in layouts for one in layout.declared)


def _values(declared: Declaration) -> dict[str, Any]:
    return {field.name: getattr(declared, field.name) for field in dataclasses.fields(declared)}


def _completed(root: Path, guess: _Guess, given: dict[str, Any]) -> Declaration:
    values: dict[str, Any] = {"images": guess.images, "masks": guess.masks, **given}
    values.setdefault("organ", "unknown")  # to find the pairs; it is asked for below
    together = values["images"] == values["masks"]
    if "pairing" not in given:
        trial = declare({**values, "pairing": "*=*_mask" if together else "*=*"}, root)
        pairing = better_pairing(root, trial)
        if not pairing:
            raise InputError(
                f"{root}: no image in {guess.images} has a mask in {guess.masks} by any usual pairing, "
                f"such as {_sample(root, guess.images)} with {_sample(root, guess.masks)}: give --pairing "
                "'IMAGE=MASK' (docs/data.md)"
            )
        values["pairing"] = pairing
    images = [pair.image for pair in find_pairs(root, declare(values, root)).pairs]
    values = {**_told_by_names(images, values["images"]), **values}
    if "organ" not in given:
        values["organ"] = _organ(root, images)
    numbered = len(images) >= NUMBERED and all(stem_of(path).isdigit() for path in images)
    if numbered and "patient" not in values:
        values["neighbours"] = True
    return declare(values, root)


def _organ(root: Path, images: Sequence[Path]) -> str:
    """The organ that the names of the folders tell; raises InputError where they tell none, or several."""
    folders = {os.path.basename(os.path.abspath(root)), *_names(root, images)}
    text = " ".join(folders).casefold()
    organs = [organ for organ, words in ORGANS.items() if any(word in text for word in words)]
    if not organs and images and all(BUSI_NAME.fullmatch(path.name) for path in images):
        organs = ["breast"]
    if len(organs) != 1:
        raise InputError(
            f"{root}: its folders name {' and '.join(organs) or 'no organ'}, expected one: say what the "
            "images show by --organ NAME (any name, such as brain)"
        )
    return organs[0]


def _names(root: Path, images: Iterable[Path]) -> set[str]:
    return {part for path in images for part in path.parent.relative_to(root).parts}


def _told_by_names(images: Sequence[Path], pattern: str) -> dict[str, Any]:
    """label and patient, where the folders or the files' names tell them."""
    told: dict[str, Any] = {}
    last = Path(pattern).name
    folders = Counter(path.parent.name.casefold() for path in images)
    if set(folders) <= set(CLASSES) and ("*" in last or last.casefold() in CLASSES):
        told["label"] = FOLDER
    elif images and all(BUSI_NAME.fullmatch(path.name) for path in images):
        told["label"] = "* (#)"
    elif "*" in last and len(folders) > 2 and not set(folders) & {*SPLITS, *IMAGE_FOLDERS}:
        told["patient"] = FOLDER
    elif all(re.fullmatch(r"TCGA_.+_\d+", path.stem) for path in images):
        told["patient"] = "*_#"
    return told


def _guesses(root: Path, masks: str | None) -> list[_Guess]:
    """Folders, as patterns: those of masks and their images, else those in which both lie."""
    folders = [
        Path(base).relative_to(root).parts
        for base, names, _ in os.walk(root)
        if not names.sort() and _visible(Path(base).relative_to(root).parts) and image_files(Path(base))
    ]
    wanted = {folder.relative_to(root).parts for _, folder in expand(root, masks)} if masks else set()
    pairs = []
    for folder in folders:
        at = _mask_part(folder)
        if folder not in wanted if wanted else at is None:
            continue
        if (partner := _partner(folder, folders, at, wanted)) is not None:
            pairs.append((partner, folder))
    if pairs:
        several = [image for image, count in Counter(image for image, _ in pairs).items() if count > 1]
        if several:
            names = ", ".join("/".join(mask) for image, mask in pairs if image == several[0])
            raise InputError(
                f"{root}: {'/'.join(several[0])} has masks in {names}, expected one: name it by --masks"
            )
        return _generalised(pairs)
    beside = [
        folder
        for folder in folders
        if any(_is_mask_name(stem_of(path)) for path in image_files(root.joinpath(*folder)))
    ]
    return _generalised([(folder, folder) for folder in beside])


def _partner(folder: Parts, folders: list[Parts], at: int | None, wanted: set[Parts]) -> Parts | None:
    """The folder of the images to a folder of masks: of the same place, by its name or as the only one."""
    at = len(folder) - 1 if at is None else at
    rests = (folder[at + 1 :], ())
    beside = [
        other
        for other in folders
        if other[:at] == folder[:at] and len(other) > at and other not in wanted and _mask_part(other) is None
        and other[at + 1 :] in rests
    ]  # fmt: skip
    beside.sort(key=lambda other: other[at + 1 :] != folder[at + 1 :])  # train/ beside train/ first
    named = [other for other in beside if _is_named(other[at], IMAGE_FOLDERS)]
    if named or len(beside) == 1:
        return (named or beside)[0]
    if not beside and folder[:at] in folders:
        return folder[:at]  # images right in the folder, masks in one below it
    return None


def _generalised(pairs: list[tuple[Parts, Parts]]) -> list[_Guess]:
    """One guess for folders that differ in one or two places alone; else one for each pair."""
    if len(pairs) > 1 and len({(len(image), len(mask)) for image, mask in pairs}) == 1:
        images, masks = ([pair[i] for pair in pairs] for i in (0, 1))
        patterns = [_pattern(parts) for parts in (images, masks)]
        if all(pattern.count("*") <= 2 and pattern.strip("*/") for pattern in patterns) or (
            images == masks and len(images[0]) == 1
        ):
            return [_Guess(*patterns)]
    return [_Guess("/".join(image) or ".", "/".join(mask) or ".") for image, mask in pairs]


def _pattern(folders: list[Parts]) -> str:
    return "/".join(column[0] if len(set(column)) == 1 else "*" for column in zip(*folders, strict=True))


def _mask_part(folder: Parts) -> int | None:
    """Which part of a path names a folder of masks; the last such."""
    return next((i for i in reversed(range(len(folder))) if _is_named(folder[i], MASK_FOLDERS)), None)


def _is_named(name: str, words: Iterable[str]) -> bool:
    """Whether a folder's name is one of the words, or begins or ends with one: `train_masks`, `labelsTr`."""
    plain = unicodedata.normalize("NFC", name).casefold()
    parts = re.split(r"[^a-z]+", plain)
    return any(
        plain in (word, f"{word}s") or plain == f"{word}str" or plain == f"{word}sts"
        or parts[-1] in (word, f"{word}s") or parts[0] in (word, f"{word}s")
        for word in words
    )  # fmt: skip


def _is_mask_name(stem: str) -> bool:
    return any(
        key_of(form, stem, numbered=True)
        for word in MASK_WORDS
        for form in (f"*_{word}", f"*-{word}", f"* {word}", f"*.{word}", f"{word}_*")
    )


def _visible(parts: Parts) -> bool:
    return not any(part.startswith(".") or part in _JUNK for part in parts)


def _sample(root: Path, pattern: str) -> str:
    return next((path.name for _, folder in expand(root, pattern) for path in image_files(folder)), "nothing")


def _there(root: Path) -> str:
    names = sorted(path.name + ("/" if path.is_dir() else "") for path in root.iterdir())
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "") if names else "it is empty"
