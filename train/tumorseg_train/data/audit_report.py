"""The audit as a page: the verdict, images by class, then every finding that can be looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from markupsafe import Markup

from tumorseg_train.data.audit import Audit, DuplicatePair, SplitCheck, quantiles
from tumorseg_train.data.checks import KINDS, MEANING
from tumorseg_train.data.datasets import Sample, UInt8Array, read_pair
from tumorseg_train.report.case_view import BoolArray, PageCase, Words, page_case
from tumorseg_train.report.charts import histogram
from tumorseg_train.report.page import (
    PASSED,
    REFUSED,
    UNVERIFIED,
    Verdict,
    bullets,
    details,
    page,
    paragraph,
    side_by_side,
    table,
)

HEIGHT = 200  # pixels of an image in the viewer
BESIDE = 4  # images of a cluster that are shown side by side
CASES = 40  # findings with pictures; the folded lists name all
SIZES = 12  # most frequent image sizes in the table


def audit_page(audit: Audit) -> str:
    """The page; reads the pictured images again."""
    folded = [("Split", _split(audit, audit.split))] if audit.split else []
    folded += [
        ("Problems of files", _problems(audit)),
        ("One scene in two classes", _pairs([pair for pair in audit.pairs if pair.conflicting])),
        ("Near-duplicates", _clusters(audit)),
        ("Colour among gray", _named(audit.coloured())),
        ("Masks at the border", _named(audit.at_the_border())),
        ("Several masks", _named([sample.image for sample in audit.several_masks()])),
        ("Sizes of images", _sizes(audit)),
        ("Sizes of lesions", _areas(audit)),
    ]
    lead = f"{len(audit.samples)} images under {audit.root}, {len(audit.facts)} of them sound."
    if audit.phantoms:
        lead += " They are phantoms, drawn images: only files with equal bytes count as duplicates."
    return page(
        "Data audit",
        verdict(audit),
        _images(audit),
        cases=list(_cases(audit)),
        words=Words(truth="masks"),
        folded=folded,
        lead=lead,
    )


def verdict(audit: Audit) -> Verdict:
    """Red for what makes evidence worthless, amber for what is left open."""
    if reasons := audit.worthless():
        return Verdict(REFUSED, f"Evidence from this data is worthless: {'; '.join(reasons)}.", "worthless")
    if audit.split is None:
        return Verdict(
            UNVERIFIED,
            "The files have no fault that spoils results; no split was given to check (--split).",
        )
    return Verdict(PASSED, "Neither the files nor the split have a fault that spoils results.", "sound")


def _images(audit: Audit) -> Markup:
    count = Counter((sample.organ, sample.label) for sample in audit.samples)
    sound = Counter((s.organ, s.label) for s in audit.samples if s.image in audit.facts)
    empty = audit.without_tumour()
    patients = {(s.organ, s.label, s.patient) for s in audit.samples if s.patient}
    named = Counter((organ, label) for organ, label, _ in patients)
    rows = [
        (f"{organ} {label}", *(str(of[organ, label]) for of in (count, sound, empty, named)))
        for organ, label in sorted(count)
    ]
    unread = [f"Not read, no known layout: {name}" for name in audit.unread_folders]
    header = ("organ and class", "images>", "sound>", "without a tumour>", "patients named>")
    return table(header, rows, label="Images by class", cards=True) + bullets(unread)


def _problems(audit: Audit) -> Markup:
    blocks = []
    for kind in KINDS:
        lines = [problem.text for problem in audit.problems if problem.kind == kind]
        blocks.append(paragraph(f"{kind} ({MEANING[kind]}): {len(lines)}") + bullets(lines))
    return Markup().join(blocks)


def _split(audit: Audit, split: SplitCheck) -> Markup:
    across = [pair for pair in audit.pairs if pair.across]
    lines = [
        f"{split.file}: method {split.method}",
        f"{len(split.leaks)} groups with images in several parts",
        f"{len(across)} pairs of near-duplicates in different parts",
        f"{len(split.unlisted)} sound images are not in the split",
    ]
    lines += [f"listed, but not found or not sound: {name}" for name in split.missing]
    lines += [f"changed since: {name}" for name in split.changed]
    rows = [
        (
            leak.group.name,
            leak.group.kind,
            ", ".join(f"{image} ({part})" for image, part in leak.images.items()),
        )
        for leak in split.leaks
    ]
    leaks = details(f"{len(rows)} groups", table(("group", "kind", "images"), rows)) if rows else Markup()
    return bullets(lines) + leaks + bullets([_said(pair) for pair in across])


def _said(pair: DuplicatePair) -> str:
    names = [
        f"{image} ({', '.join(filter(None, (label, part)))})"
        for image, label, part in zip((pair.first, pair.second), pair.classes, pair.parts, strict=True)
    ]
    same = "same bytes" if pair.same_bytes else f"similarity {pair.similarity:.2f}"
    return f"{' and '.join(names)}: {same}"


def _pairs(pairs: Sequence[DuplicatePair]) -> Markup:
    return _named([_said(pair) for pair in pairs])


def _named(lines: Sequence[str]) -> Markup:
    return bullets(lines) or paragraph("None.")


def _clusters(audit: Audit) -> Markup:
    clusters = audit.clusters()
    if not clusters:
        return paragraph("None.")
    copies = sum(pair.same_bytes for pair in audit.pairs)
    said = (
        f"{len(clusters)} clusters of {sum(map(len, clusters))} images, {len(audit.pairs)} pairs, "
        f"{copies} of them with the same bytes."
    )
    similarity = histogram(
        "Similarity of the pairs", [pair.similarity for pair in audit.pairs], x="similarity"
    )
    return paragraph(said) + similarity + bullets([", ".join(images) for images in clusters])


def _sizes(audit: Audit) -> Markup:
    rows = []
    for organ, sizes in sorted(audit.sizes().items()):
        common = sizes.most_common(SIZES)
        rows += [(organ, f"{width}x{height}", str(count)) for (height, width), count in common]
        others = len(sizes) - len(common)
        if others:
            rows.append((organ, f"{others} other sizes", str(sizes.total() - sum(n for _, n in common))))
    return table(("organ", "width x height", "images>"), rows)


def _areas(audit: Audit) -> Markup:
    areas = audit.areas()
    rows = [
        (f"{organ} {label}", str(len(values)), *(f"{value:.2%}" for value in quantiles(values).values()))
        for (organ, label), values in areas.items()
    ]
    header = ("organ and class", "with a tumour>", "least>", "quartile>", "median>", "quartile>", "most>")
    charts = [
        histogram(f"{organ} {label}", [100 * value for value in values], x="% of the image")
        for (organ, label), values in areas.items()
    ]
    said = paragraph("Share of the image that the tumour covers.")
    return said + table(header, rows) + side_by_side(charts)


def _cases(audit: Audit) -> Iterator[PageCase]:
    """Findings to look at, the worst first, CASES at most."""
    found: list[tuple[str, str, Sequence[str]]] = []
    for pair in audit.pairs:
        title = "One scene in two classes" if pair.conflicting else "Near-duplicates in two parts"
        if pair.conflicting or pair.across:
            found.append((title, _said(pair), (pair.first, pair.second)))
    found += [("Near-duplicates", ", ".join(images), images) for images in audit.clusters()]
    found += [("Colour among gray", image, (image,)) for image in audit.coloured()]
    found += [("Mask at the border", image, (image,)) for image in audit.at_the_border()]
    found += [("Several masks", s.image, (s.image,)) for s in audit.several_masks()]
    found.sort(key=lambda each: each[0] != "One scene in two classes")
    by_name = {sample.image: sample for sample in audit.samples}
    for title, said, images in found[:CASES]:
        sound = [image for image in images if image in audit.facts][:BESIDE]
        if sound:
            pixels, masks = zip(*(_small(audit.root, by_name[image]) for image in sound), strict=True)
            yield page_case(title, said, np.hstack(pixels), np.hstack(masks), longest=4 * HEIGHT)


def _small(root: Path, sample: Sample) -> tuple[UInt8Array, BoolArray]:
    """uint8 (HEIGHT, w, 3) RGB and bool (HEIGHT, w)."""
    image, mask = read_pair(root, sample)
    size = (max(1, round(image.shape[1] * HEIGHT / image.shape[0])), HEIGHT)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    colour = cv2.cvtColor(small, cv2.COLOR_GRAY2RGB) if small.ndim == 2 else small.copy()
    colour[:, -1] = 255  # a line between neighbours
    shape = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return np.asarray(colour, np.uint8), np.asarray(shape > 0)
