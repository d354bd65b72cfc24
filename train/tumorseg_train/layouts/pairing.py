"""The files that a declaration names, and which mask belongs to which image."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from tumorseg_runtime.images.nifti.names import is_volume, stem_of
from tumorseg_runtime.images.read import SUFFIXES
from tumorseg_train.layouts.declaration import FOLDER, Declaration
from tumorseg_train.layouts.name_patterns import Key, folded, key_of, parse_pairing

Place = tuple[str, ...]  # what the * of a folder pattern stand for


@dataclasses.dataclass(frozen=True)
class FoundPair:
    """An image, its masks, its class and its patient ('' where nothing tells)."""

    image: Path
    masks: tuple[Path, ...]
    label: str
    patient: str


@dataclasses.dataclass(frozen=True)
class Found:
    """What a declaration names. strays: files in its folders that are neither image nor mask of one.

    series: volumes beside the images that are named otherwise: other series of the same patients.
    """

    pairs: tuple[FoundPair, ...]
    orphans: tuple[Path, ...]
    strays: tuple[Path, ...]
    series: tuple[Path, ...]

    def bare(self) -> tuple[FoundPair, ...]:
        """The pairs without a mask."""
        return tuple(pair for pair in self.pairs if not pair.masks)


def is_image_file(path: Path) -> bool:
    """Whether a name is an image's or a volume's, and no hidden file's, and a file is there."""
    named = path.suffix.lower() in SUFFIXES or is_volume(path)
    return named and not path.name.startswith(".") and path.is_file()


def image_files(folder: Path) -> list[Path]:
    """Image files right in a folder, sorted; none where the folder is absent."""
    return sorted(path for path in folder.iterdir() if is_image_file(path)) if folder.is_dir() else []


def expand(root: Path, pattern: str) -> list[tuple[Place, Path]]:
    """The folders of a pattern such as `*/images` with what their * stand for, sorted."""
    found: list[tuple[Place, Path]] = [((), root)]
    for part in Path(pattern).parts:
        if "*" not in part:
            found = [(place, folder / part) for place, folder in found if (folder / part).is_dir()]
            continue
        fit = re.compile("(.*)".join(map(re.escape, part.split("*"))))
        found = [
            ((*place, *match.groups()), inner)
            for place, folder in found
            for inner in sorted(folder.iterdir())
            if inner.is_dir() and not inner.name.startswith(".") and (match := fit.fullmatch(inner.name))
        ]
    return found


def find_pairs(root: Path, declared: Declaration) -> Found:
    """Every image that is declared, with its masks; in the order of their paths."""
    image_pattern, mask_patterns = parse_pairing(declared.pairing)
    mask_places = expand(root, declared.masks)
    mask_folders = {folder for _, folder in mask_places}
    image_places = expand(root, declared.images)
    shared = {folder for _, folder in image_places} & mask_folders
    exact: dict[tuple[Place, Key], list[Path]] = {}
    loose: dict[tuple[Place, Key], list[Path]] = {}
    masks: dict[Path, None] = {}
    parallel = declared.images.count("*") == declared.masks.count("*")
    for place, folder in mask_places:
        for path in image_files(folder):
            for key in _keys(mask_patterns, stem_of(path)):
                masks[path] = None
                at = place if parallel else ()
                exact.setdefault((at, key), []).append(path)
                loose.setdefault((at, folded(key)), []).append(path)
    pairs, used = [], set()
    strays: list[Path] = []
    series: list[Path] = []
    for place, folder in image_places:
        for path in image_files(folder):
            if folder in shared and path in masks:
                continue
            fit = key_of(image_pattern, stem_of(path))
            if fit is None:
                (series if is_volume(path) else strays).append(path)
                continue
            at = place if parallel else ()
            own = exact.get((at, fit)) or loose.get((at, folded(fit))) or []
            used |= set(own)
            label = _told(declared.label, path).casefold()
            pairs.append(FoundPair(path, tuple(dict.fromkeys(own)), label, _told(declared.patient, path)))
    outside = mask_folders - shared
    strays += [path for folder in outside for path in image_files(folder) if path not in masks]
    orphans = tuple(path for path in masks if path not in used)
    return Found(tuple(pairs), orphans, tuple(sorted(strays)), tuple(series))


def better_pairing(root: Path, declared: Declaration) -> str:
    """The pairing that fits most images of a declaration, '' where none fits any."""
    images = [path for _, folder in expand(root, declared.images) for path in image_files(folder)]
    masks = [path for _, folder in expand(root, declared.masks) for path in image_files(folder)]
    together = declared.images == declared.masks
    best, most = "", 0
    for pairing in candidates(*(list(map(stem_of, paths)) for paths in (images, masks)), together=together):
        found = find_pairs(root, dataclasses.replace(declared, pairing=pairing))
        fit = sum(bool(pair.masks) for pair in found.pairs) - len(found.orphans) - len(found.strays)
        if fit > most:
            best, most = pairing, fit
    return best


MASK_WORDS = (
    "mask", "seg", "label", "gt", "segmentation", "lesion", "tumor", "tumour", "annotation", "groundtruth",
    "ground_truth", "anno", "roi",
)  # fmt: skip
IMAGE_WORDS = ("image", "img", "im", "frame", "slice", "scan", "us", "mri", "input")
SERIES_WORDS = (  # of several series of one patient the first of these is taken
    "t1ce", "t1c", "t1gd", "flair", "t2f", "t2w", "t2", "t1n", "t1w", "t1", "0000", "ct", "mr",
)  # fmt: skip


def candidates(images: list[str], masks: list[str], *, together: bool) -> Iterator[str]:
    """Pairings to try for these stems, the likely ones first."""
    after = [f"*{join}{word}" for word in MASK_WORDS for join in ("_", "-", " ", ".", "")]
    before = [f"{word}{join}*" for word in MASK_WORDS for join in ("_", "-", " ", "")]
    image_forms = [f"{word}{join}*" for word in IMAGE_WORDS for join in ("_", "-", " ", "")]
    image_after = [f"*{join}{word}" for word in (*IMAGE_WORDS, *SERIES_WORDS) for join in ("_", "-", " ")]
    present = [form for form in (*after, *before) if any(key_of(form, s, numbered=True) for s in masks)]
    named = [form for form in (*image_forms, *image_after) if any(key_of(form, s) for s in images)]
    if not together:
        yield "*=*"
        yield "*=*|" + "|".join(f"*_{word}" for word in MASK_WORDS[:1])
    yield from (f"{image}={mask}" for image in named for mask in present)
    yield from (f"*={mask}" for mask in present)
    if together:
        return
    yield from (f"{image}=*" for image in named)
    yield from _learned(images, masks)
    yield "#=#"
    numbered = (form.replace("*", "#") for form in (*after, *before) if any(map(str.isdigit, "".join(masks))))
    yield from (f"#={form}" for form in numbered)
    yield from (f"{i.replace('*', '#')}={m.replace('*', '#')}" for i in named for m in present)


def _learned(images: list[str], masks: list[str]) -> Iterator[str]:
    """The pairing by what all images' names, and all masks' names, begin and end with."""
    if len(images) < 2 or len(masks) < 2:
        return
    starts, ends = ([_common(stems, back=back) for stems in (images, masks)] for back in (False, True))
    start = ["", ""] if starts[0] == starts[1] else starts
    end = ["", ""] if ends[0] == ends[1] else ends
    pair = [f"{start[i]}*{end[i]}" for i in (0, 1)]
    if not any(set("*#=|") & set(text.replace("*", "", 1)) for text in pair):
        yield f"{pair[0]}={pair[1]}"


def _common(stems: Iterable[str], *, back: bool) -> str:
    """What all stems begin, or end, with, without digits at its inner end."""
    texts = [unicodedata.normalize("NFC", stem)[:: -1 if back else 1] for stem in stems]
    low, high = min(texts), max(texts)
    length = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    shared = low[:length].rstrip("0123456789")
    return shared[::-1] if back else shared


def _keys(patterns: Iterable[str], stem: str) -> set[Key]:
    keys = {key_of(pattern, stem, numbered=numbered) for pattern in patterns for numbered in (False, True)}
    return {key for key in keys if key is not None}


def _told(text: str, path: Path) -> str:
    """A label or patient as it is declared, of one image."""
    if text == FOLDER:
        return path.parent.name
    if "*" not in text:
        return text
    key = key_of(text, stem_of(path))
    if key is None:
        return ""
    return key[[part for part in text if part in "*#"].index("*")]
