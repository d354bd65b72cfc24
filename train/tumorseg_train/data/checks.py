"""Whether a dataset's files are sound: every problem of every file, and the facts of what is sound."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.progress import Tell, silent, told
from tumorseg_runtime.images.nifti.names import is_volume, slice_of
from tumorseg_train.data.datasets import (
    Sample,
    UInt8Array,
    read_mask,
    read_pixels,
    size_problem,
)
from tumorseg_train.data.near_duplicates import Fingerprint, fingerprint_of
from tumorseg_train.layouts import figshare_mat as figshare_mat
from tumorseg_train.layouts.declaration import TUMOUR, Declaration
from tumorseg_train.layouts.known import find_layouts
from tumorseg_train.layouts.masks import BORDER, BoolArray, border_share, read_tumour
from tumorseg_train.layouts.pairing import (
    Found,
    better_pairing,
    find_pairs,
    image_files,
    is_image_file,
)
from tumorseg_train.layouts.volumes import check_grid, file_of

UNREADABLE, MISMATCHED, EMPTY, INVERTED, STRAY = KINDS = (
    "unreadable", "mismatched", "empty", "inverted", "stray",
)  # fmt: skip
MEANING = {
    UNREADABLE: "files that cannot be read, and masks whose values are no mask",
    MISMATCHED: "masks that are missing, of another size, of several images, or in a normal image",
    EMPTY: "images of a class with a tumour whose masks are empty",
    INVERTED: "masks that fill the image, or half of its border and more",
    STRAY: "image files that are neither an image nor its mask",
}
MOST_LINES = 3  # files with the same fault in one folder; more of them are one line
_NAMED = 3  # of their names


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is wrong with a file. kind: one of `KINDS`. file: relative to the root. text: one line.

    fault: what is said once where many files of a folder have it; it names none of them.
    """

    kind: str
    file: str
    text: str
    fault: str = dataclasses.field(default="", compare=False)

    def to_dict(self) -> dict[str, str]:
        """As JSON holds it."""
        return {"kind": self.kind, "file": self.file, "text": self.text}


@dataclasses.dataclass(frozen=True)
class Facts:
    """What reading a sound sample tells: size in pixels, pixels of tumour, and what is compared of it.

    border: share of the pixels at the image's border that are tumour.
    """

    height: int
    width: int
    tumour_px: int
    coloured: bool
    border: float
    fingerprint: Fingerprint = dataclasses.field(repr=False, compare=False)


def check_samples(root: Path, samples: list[Sample], declared: tuple[Declaration, ...] = ()) -> list[str]:
    """Every problem of every file, one line each with what to do; empty if all is well. Reads all files."""
    return [problem.text for problem in examine(root, samples, declared)[1]]


def examine(
    root: Path, samples: list[Sample], declared: tuple[Declaration, ...] = (), tell: Tell = silent
) -> tuple[dict[str, Facts], list[Problem]]:
    """Facts of each sound sample by its image's path, and all problems. declared: as in `find_samples`.
    tell: the share of the samples that is read."""
    facts: dict[str, Facts] = {}
    bare, explained = _without_masks(root, declared)
    problems: list[Problem] = []
    unsound: set[Path] = set()  # volumes: what is wrong with one is said once
    for sample in told(samples, tell):
        whole = file_of(Path(sample.image))
        if whole in unsound:
            continue
        found, wrong = _examine_one(root, sample)
        if not sample.masks and sample.label != "normal":
            wrong.insert(0, bare[whole.as_posix()])
        if wrong and whole != Path(sample.image):
            unsound.add(whole)
        problems += wrong
        if found is not None and not wrong:
            facts[sample.image] = found
    return facts, problems + _shared_masks(samples) + _strays(root, samples, declared, explained)


def in_few_lines(problems: list[Problem]) -> list[str]:
    """The problems' texts, but one line for a fault that more than three files of a folder have."""
    groups: dict[tuple[str, str, str], list[Problem]] = {}
    for problem in problems:
        folder = Path(problem.file).parent.as_posix()
        fault = (
            problem.fault.partition("expected")[2] or problem.fault or problem.text
        )  # what is got may vary
        key = (problem.kind, folder, fault)
        groups.setdefault(key, []).append(problem)
    lines = []
    for same in groups.values():
        if len(same) <= MOST_LINES:
            lines += [problem.text for problem in same]
            continue
        names = ", ".join(Path(problem.file).name for problem in same[:_NAMED])
        folder = Path(same[0].file).parent.as_posix()
        lines.append(f"{folder}: {len(same)} files ({names}, ...): {same[0].fault}")
    return lines


def at_the_border(facts: dict[str, Facts]) -> list[str]:
    """Sound images of which the masks fill half of the border and more, since they are declared so."""
    return [image for image, fact in facts.items() if fact.border >= BORDER]


def _examine_one(root: Path, sample: Sample) -> tuple[Facts | None, list[Problem]]:
    problems: list[Problem] = []

    def wrong(kind: str, file: str, said: str) -> None:
        problems.append(Problem(kind, file, f"{file}: {said}", said))

    image: UInt8Array | None = None
    try:
        image = read_pixels(root / sample.image)
        if figshare_mat.is_slice(root / sample.image):
            figshare_mat.read_origin(root / sample.image)
    except InputError as error:
        problems.append(_unreadable(root, sample.image, error))
    union: BoolArray | None = None
    if image is None and is_volume(Path(sample.image)):
        return None, problems  # how many slices it has is not known
    for name in sample.masks:
        try:
            mask = read_mask(root / name)
        except InputError as error:
            if name != sample.image or not problems:  # a .mat is both; one line is enough
                problems.append(_unreadable(root, name, error))
            continue
        if image is not None and mask.shape[:2] != image.shape[:2]:
            text = size_problem(name, mask, sample.image, image.shape)
            problems.append(Problem(MISMATCHED, name, text, "are of another size than their images"))
            continue
        try:
            check_grid(root / sample.image, root / name)
        except InputError as error:
            wrong(MISMATCHED, file_of(Path(name)).as_posix(), str(error))
            continue
        try:
            tumour = read_tumour(mask, sample.rule)
        except InputError as error:
            wrong(UNREADABLE, name, str(error))
            continue
        share = border_share(tumour)
        if share >= BORDER and not sample.rule.tumour:
            problems.append(_inverted(name, tumour, share, soft=bool(sample.rule.soft_threshold)))
        union = tumour if union is None else union | tumour
    area = 0 if union is None else int(union.sum())
    if sample.label == "normal" and area:
        wrong(
            MISMATCHED, sample.image,
            f"is normal, but its masks mark {area} pixels, expected none: move image and "
            "masks to the right class, or blacken the mask",
        )  # fmt: skip
    single = not slice_of(Path(sample.image))  # in a volume most slices are without
    if single and sample.label not in ("normal", TUMOUR) and union is not None and not problems and not area:
        wrong(
            EMPTY, sample.image,
            f"is {sample.label}, but its masks are empty, expected a tumour: mark it, or "
            + ("move image and masks to normal" if sample.organ == "breast" else "take the image out"),
        )  # fmt: skip
    if problems or image is None:
        return None, problems
    border = 0.0 if union is None else border_share(union)
    return Facts(image.shape[0], image.shape[1], area, image.ndim == 3, border, fingerprint_of(image)), []


def _inverted(name: str, tumour: BoolArray, share: float, *, soft: bool) -> Problem:
    fills = "fills the image" if tumour.all() else f"fills {share:.0%} of the image's border"
    remedy = (
        "if the tumour is dark, declare --tumour 0; if the mask is right, declare its tumour's value "
        f"(--tumour {'white' if soft else '255'}, or any)"
    )
    said = f"expected a tumour inside the image (it is probably inverted): {remedy}"
    return Problem(
        INVERTED, name, f"{name}: {fills}, {said}", f"fill the image's border or all of it, {said}"
    )


def _unreadable(root: Path, name: str, error: InputError) -> Problem:
    """The message of an error about a file, with the path that the other problems use."""
    text = str(error).removeprefix(f"{root}/")
    return Problem(UNREADABLE, name, text, text.removeprefix(f"{name}: "))


def _without_masks(root: Path, declared: tuple[Declaration, ...]) -> tuple[dict[str, Problem], set[Path]]:
    """The problem of each image without a mask; and the files that would be masks by the pairing it names."""
    problems: dict[str, Problem] = {}
    explained: set[Path] = set()
    for layout in find_layouts(root, declared):
        for one in layout.declared:
            found = find_pairs(root, one)
            hint = _hint(root, one, found)
            if hint:
                explained |= {*found.orphans, *found.strays}
            for pair in found.bare():
                name = pair.image.relative_to(root).as_posix()
                problems[name] = Problem(
                    MISMATCHED,
                    name,
                    f"{name}: has no mask, expected {_expected_mask(one, pair.image)}: "
                    + (hint or "add it (all black if there is no tumour), or take the image out"),
                    f"have no masks in {one.masks} by the pairing '{one.pairing}': "
                    + (hint or "add them (all black if there is no tumour), or take the images out"),
                )
    return problems, explained


def _hint(root: Path, declared: Declaration, found: Found) -> str:
    """What is said where most images lack a mask, and another pairing finds them; else ''."""
    if 2 * len(found.bare()) <= len(found.pairs):
        return ""
    pairing = better_pairing(root, declared)
    if not pairing or pairing == declared.pairing:
        return ""
    there = find_pairs(root, dataclasses.replace(declared, pairing=pairing))
    masks = [mask for pair in there.pairs for mask in pair.masks]
    return (
        f"{len(masks)} files such as {masks[0].relative_to(root).as_posix()} lie there, declare --pairing "
        f"'{pairing}' (tumorseg data import)"
    )


def _expected_mask(declared: Declaration, image: Path) -> str:
    if declared.images == declared.masks:
        return f"{image.stem}_mask{image.suffix}" if "_mask" in declared.pairing else declared.pairing
    return f"{declared.masks}/{image.name}"


def _shared_masks(samples: list[Sample]) -> list[Problem]:
    uses = Counter(name for sample in samples for name in sample.masks)
    return [
        Problem(
            MISMATCHED,
            name,
            f"{name}: belongs to {count} images of the same stem, expected one: rename or remove the others",
        )
        for name, count in sorted(uses.items())
        if count > 1
    ]


def _strays(
    root: Path, samples: list[Sample], declared: tuple[Declaration, ...], explained: set[Path]
) -> list[Problem]:
    """Image files inside the datasets that are neither an image nor a mask of one."""
    known = {name for sample in samples for name in (sample.image, *sample.masks)}
    files: set[Path] = set()
    orphans: set[Path] = set()
    for layout in find_layouts(root, declared):
        for one in layout.declared:
            found = find_pairs(root, one)
            orphans |= set(found.orphans)
            files |= {*found.orphans, *found.strays}
        if layout.home:
            files |= {path for path in layout.home.rglob("*") if is_image_file(path)} | set(image_files(root))
    problems = []
    for path in sorted(files - explained):
        name = path.relative_to(root).as_posix()
        if name in known or any(part.startswith(".") for part in Path(name).parts):
            continue
        said = (
            "a mask without an image, expected one of the same name: add it or remove the mask"
            if path in orphans or path.parent.name == "masks"
            else "an image outside the layout, expected only images and masks: move it out"
        )
        problems.append(Problem(STRAY, name, f"{name}: is {said}", f"each {said}"))
    return problems
