"""The audit as one HTML page with thumbnails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from tumorseg_train.data.audit import Audit, DuplicatePair, SplitCheck, quantiles
from tumorseg_train.data.checks import KINDS, MEANING
from tumorseg_train.data.datasets import Sample, UInt8Array, read_pair
from tumorseg_train.report.charts import histogram
from tumorseg_train.report.page import (
    Html,
    bullets,
    details,
    gallery,
    image_uri,
    page,
    paragraph,
    picture,
    side_by_side,
    table,
)

HEIGHT = 150  # pixels of a thumbnail
QUALITY = 80  # of its JPEG
PICTURES = 150  # in a section; what is beyond is named
SIZES = 12  # most frequent image sizes in the table
OUTLINE = (255, 200, 0)  # RGB


def audit_page(audit: Audit) -> str:
    """The page; reads the pictured images again."""
    reasons = audit.worthless()
    verdict = bullets(reasons) if reasons else paragraph("Nothing makes evidence from this data worthless.")
    sections = [("Verdict", str(verdict)), ("Images", _images(audit))]
    if audit.split:
        sections.append(("Split", _split(audit, audit.split)))
    sections += [
        ("Problems of files", _problems(audit)),
        ("One scene in two classes", _pairs(audit, [pair for pair in audit.pairs if pair.conflicting])),
        ("Near-duplicates", _clusters(audit)),
        ("Colour among gray", _listed(audit, audit.coloured())),
        ("Several masks", _listed(audit, [sample.image for sample in audit.several_masks()])),
        ("Sizes of images", _sizes(audit)),
        ("Sizes of lesions", _areas(audit)),
    ]
    lead = f"{len(audit.samples)} images under {audit.root}, {len(audit.facts)} of them sound."
    if audit.phantoms:
        lead += " They are phantoms, drawn of nobody: only files with equal bytes count as duplicates."
    return page("Data audit", sections, lead=lead)


def _images(audit: Audit) -> Html:
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
    return Html(table(header, rows) + bullets(unread))


def _problems(audit: Audit) -> Html:
    blocks = []
    for kind in KINDS:
        lines = [problem.text for problem in audit.problems if problem.kind == kind]
        blocks.append(paragraph(f"{kind} ({MEANING[kind]}): {len(lines)}") + bullets(lines))
    return Html("".join(blocks))


def _split(audit: Audit, split: SplitCheck) -> Html:
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
    leaks = table(("group", "kind", "images"), rows) if rows else Html("")
    pictures = _pairs(audit, across) if across else Html("")
    return Html(bullets(lines) + (details(f"{len(rows)} groups", leaks) if rows else "") + pictures)


def _pairs(audit: Audit, pairs: Sequence[DuplicatePair]) -> Html:
    if not pairs:
        return paragraph("None.")
    shown = []
    for pair in pairs[:PICTURES]:
        names = [
            f"{image} ({', '.join(filter(None, (label, part)))})"
            for image, label, part in zip((pair.first, pair.second), pair.classes, pair.parts, strict=True)
        ]
        same = "same bytes" if pair.same_bytes else f"similarity {pair.similarity:.2f}"
        shown.append(_strip(audit, (pair.first, pair.second), f"{' and '.join(names)}: {same}"))
    rest = [f"{pair.first} and {pair.second}: {pair.similarity:.2f}" for pair in pairs[PICTURES:]]
    return Html(gallery(shown) + bullets(rest))


def _clusters(audit: Audit) -> Html:
    clusters = audit.clusters()
    if not clusters:
        return paragraph("None.")
    copies = sum(pair.same_bytes for pair in audit.pairs)
    said = (
        f"{len(clusters)} clusters of {sum(map(len, clusters))} images, {len(audit.pairs)} pairs, "
        f"{copies} of them with the same bytes. Outlines are those of the masks."
    )
    similarity = histogram(
        "Similarity of the pairs", [pair.similarity for pair in audit.pairs], x="similarity"
    )
    shown = [_strip(audit, images, ", ".join(images)) for images in clusters[:PICTURES]]
    rest = [", ".join(images) for images in clusters[PICTURES:]]
    return Html(paragraph(said) + similarity + gallery(shown) + bullets(rest))


def _listed(audit: Audit, images: Sequence[str]) -> Html:
    if not images:
        return paragraph("None.")
    sound = [image for image in images if image in audit.facts]
    rest = [*sound[PICTURES:], *(image for image in images if image not in audit.facts)]
    return Html(gallery([_strip(audit, (image,), image) for image in sound[:PICTURES]]) + bullets(rest))


def _sizes(audit: Audit) -> Html:
    rows = []
    for organ, sizes in sorted(audit.sizes().items()):
        common = sizes.most_common(SIZES)
        rows += [(organ, f"{width}x{height}", str(count)) for (height, width), count in common]
        others = len(sizes) - len(common)
        if others:
            rows.append((organ, f"{others} other sizes", str(sizes.total() - sum(n for _, n in common))))
    return table(("organ", "width x height", "images>"), rows)


def _areas(audit: Audit) -> Html:
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
    return Html(
        paragraph("Share of the image that the tumour covers.") + table(header, rows) + side_by_side(charts)
    )


def _strip(audit: Audit, images: Sequence[str], caption: str) -> Html:
    """Images side by side with the outlines of their masks."""
    by_name = {sample.image: sample for sample in audit.samples}
    thumbnails = [_thumbnail(audit.root, by_name[image]) for image in images]
    return picture(image_uri(np.hstack(thumbnails), jpeg_quality=QUALITY), caption, caption)


def _thumbnail(root: Path, sample: Sample) -> UInt8Array:
    """uint8 (HEIGHT, w, 3) RGB."""
    image, mask = read_pair(root, sample)
    size = (max(1, round(image.shape[1] * HEIGHT / image.shape[0])), HEIGHT)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    colour = cv2.cvtColor(small, cv2.COLOR_GRAY2RGB) if small.ndim == 2 else small.copy()
    outline = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(outline, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(colour, contours, -1, OUTLINE, 1)
    colour[:, -1] = 255  # a line between neighbours
    return np.asarray(colour, np.uint8)
