"""The layouts that need no `dataset.toml`, since names of folders say what they hold, and where each lies.

    brain     images/1.png   masks/1.png or masks/1_mask.png, in a folder `brain`
              or the author's own 1.mat (`tumorseg_train.layouts.figshare_mat`): mask, class and patient
    breast    Dataset_BUSI_with_GT/benign/benign (1).png   benign (1)_mask.png   benign (1)_mask_1.png ...
              and so malignant/ and normal/; the masks of an image are OR-ed, those of a normal one are empty

A root is one of these folders, or holds `brain` and `breast`, or one of them. `images/` and `masks/` in a
folder of another name do not say of what organ they are, and are refused until that is declared.
"""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

from tumorseg_runtime.core.errors import InputError
from tumorseg_train.layouts import figshare_mat as figshare_mat
from tumorseg_train.layouts.declaration import FILE, Declaration, read_declarations
from tumorseg_train.layouts.pairing import expand, image_files

CLASSES = ("benign", "malignant", "normal")
BUSI = "Dataset_BUSI_with_GT"
BUSI_NAME = re.compile(rf"({'|'.join(CLASSES)}) \(\d+\).*", re.IGNORECASE)
LAYOUTS = (
    f"brain/images with brain/masks, brain/1.mat ..., or breast/{BUSI} with {', '.join(CLASSES)} "
    "(docs/data.md)"
)


class NoLayoutError(InputError):
    """A folder that holds no dataset of a known layout, nor a `dataset.toml`."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """A dataset. home: the folder that is all its own, None where it is declared. slices: `.mat` files."""

    organ: str
    declared: tuple[Declaration, ...]
    home: Path | None = None
    slices: tuple[Path, ...] = ()


def find_layouts(root: Path, declared: tuple[Declaration, ...] = ()) -> list[Layout]:
    """The datasets under `root`: as declared, else as its `dataset.toml` says, else of the known layouts.

    Raises NoLayoutError where there is none, InputError for a declaration or half a layout that is wrong.
    """
    if not root.is_dir():
        raise NoLayoutError(f"{root}: is not a folder, expected {LAYOUTS}")
    if not declared and (root / FILE).is_file():
        declared = read_declarations(root / FILE)
    if declared:
        return [_checked(root, one) for one in declared]
    found = [layout for layout in (_brain(root, root), _brain(root, root / "brain")) if layout]
    for folder in (root, root / BUSI, root / "breast", root / "breast" / BUSI):
        found += _breast(root, folder)
    if not found:
        there = ", ".join(sorted(path.name for path in root.iterdir())[:8]) or "nothing"
        raise NoLayoutError(
            f"{root}: holds {there}, expected {LAYOUTS}, or another one that `tumorseg data import {root}` "
            "declares: check the path, or give a new folder and --phantoms"
        )
    return found


def _checked(root: Path, declared: Declaration) -> Layout:
    for name, pattern in (("images", declared.images), ("masks", declared.masks)):
        if not expand(root, pattern):
            raise InputError(
                f"{root}: has no folder {pattern}, which is declared to hold the {name}: correct --{name} or "
                f"{root / FILE}"
            )
    return Layout(declared.organ, (declared,))


def _brain(root: Path, folder: Path) -> Layout | None:
    parts = [name for name in ("images", "masks") if (folder / name).is_dir()]
    slices = tuple(slice_files(folder))
    if len(parts) == 1 and not slices:
        raise NoLayoutError(f"{folder}: has {parts[0]}/ only, expected images/ and masks/: copy both")
    if len(parts) == 2 and _name(folder) != "brain":
        raise InputError(
            f"{folder}: holds images/ and masks/, which does not say of what organ they are, expected a "
            f"folder 'brain' or a {FILE}: declare it by `tumorseg data import {folder} --organ NAME`"
        )
    inside = folder.relative_to(root)
    pairs = Declaration(
        organ="brain", images=(inside / "images").as_posix(), masks=(inside / "masks").as_posix(),
        pairing="*=*|*_mask", neighbours=True,
    )  # fmt: skip
    if not parts and not slices:
        return None
    return Layout("brain", (pairs,) if parts else (), folder, slices)


def _breast(root: Path, folder: Path) -> list[Layout]:
    labels = [label for label in CLASSES if (folder / label).is_dir()]
    if not labels:
        return []
    names = [path.name for label in labels for path in image_files(folder / label)]
    said = _name(folder) in ("breast", BUSI.casefold())
    if names and not said and not all(map(BUSI_NAME.fullmatch, names)):
        raise InputError(
            f"{folder}: holds {', '.join(labels)}, which does not say of what organ they are, expected a "
            f"folder '{BUSI}' or a {FILE}: declare it by `tumorseg data import {folder} --organ NAME`"
        )
    inside = folder.relative_to(root)
    declared = tuple(
        Declaration(
            organ="breast", images=(inside / label).as_posix(), masks=(inside / label).as_posix(),
            pairing="*=*_mask", label=label,
        )
        for label in labels
    )  # fmt: skip
    return [Layout("breast", declared, folder)]


def _name(folder: Path) -> str:
    return os.path.basename(os.path.abspath(folder)).casefold()


def slice_files(folder: Path) -> list[Path]:
    """Cheng's `.mat` slices in a folder and in the folders in it that his archives unpack to; sorted."""
    folders = [folder, *folder.glob(figshare_mat.FOLDERS)] if folder.is_dir() else []
    return sorted(
        path
        for one in folders
        if one.is_dir()
        for path in one.iterdir()
        if figshare_mat.is_slice(path) and path.is_file()
    )


def unread_folders(root: Path, declared: tuple[Declaration, ...] = ()) -> list[str]:
    """Names of folders right under `root` that belong to no dataset and are not read."""
    used: set[str] = set()
    for layout in find_layouts(root, declared):
        folders = [layout.home] if layout.home else [
            folder for one in layout.declared for pattern in (one.images, one.masks)
            for _, folder in expand(root, pattern)
        ]  # fmt: skip
        if root in folders:
            return []  # all of the root is one dataset: an image that is strange in it is a problem
        used |= {folder.relative_to(root).parts[0] for folder in folders}
    return sorted(
        path.name
        for path in root.iterdir()
        if path.is_dir() and path.name not in used and not path.name.startswith(".")
    )
