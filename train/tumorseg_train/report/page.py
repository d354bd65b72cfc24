"""The one HTML page of the project: training, data and benchmark reports are written on it.

A page is one file that loads nothing: its pictures are data URIs, its charts inline SVG
(`tumorseg_train.report.charts`), it has no script, and its content policy forbids the browser to fetch
anything. It is light or dark as the reader's system is, and fits a phone. Needs numpy and OpenCV, never
torch.

All text is escaped. What is HTML already has the type `Html`, and only the functions here and in `charts`
make it.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.errors import InputError

STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1b1f24; --soft: #57606a; --line: #d5dae0;
  --panel: #f5f7f9; --link: #0550ae;
  --c0: #0072b2; --c1: #c45100; --c2: #00785a; --c3: #a8467e; --c4: #7a6000; --c5: #4b4fb0; }
@media (prefers-color-scheme: dark) { :root { --ground: #14181d; --ink: #e4e8ec; --soft: #9aa5b1;
  --line: #363e47; --panel: #1d232a; --link: #79b8ff;
  --c0: #56b4e9; --c1: #ff9a4d; --c2: #3fcf9f; --c3: #e58bc0; --c4: #e0c24d; --c5: #a5a8ff; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body { margin: 0; background: var(--ground); color: var(--ink); line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
header, main, footer { max-width: 68rem; margin: 0 auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 1.2rem 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; padding-bottom: .2rem; border-bottom: 1px solid var(--line);
  scroll-margin-top: 1rem; overflow-wrap: anywhere; }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .4rem; }
p, li { max-width: 46rem; overflow-wrap: break-word; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -99rem; }
.skip:focus { left: 0; top: 0; padding: .5rem 1rem; background: var(--ground); }
main:focus { outline: none; }
.lead, .note, figcaption, caption { color: var(--soft); }
nav ol { padding: 0; margin: .5rem 0; column-gap: 2rem; }
nav li { margin-left: 2rem; overflow-wrap: anywhere; break-inside: avoid; }
@media (min-width: 48rem) { nav ol { columns: 2; } }
.scroll { overflow-x: auto; margin: .6rem 0 1rem; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; min-width: 100%; }
caption { text-align: left; padding: .4rem .6rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid var(--line); }
tbody tr:last-child > * { border-bottom: 0; }
thead th { background: var(--panel); }
thead .right { min-width: 5rem; white-space: normal; }
th:not(.right), td:not(.right) { min-width: 7rem; } th.wide, td.wide { min-width: 16rem !important; }
.right { text-align: right; white-space: nowrap; }
figure { margin: .6rem 0; min-width: 0; } figcaption { font-size: .875rem; overflow-wrap: anywhere; }
figure img { max-width: 100%; height: auto; display: block; border-radius: 4px; background: #000; }
.gallery, .charts { display: grid; gap: 1rem; }
.gallery { grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr)); }
.charts { grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }
.chart { max-width: 32rem; }
.chart > figcaption { color: var(--ink); font-weight: 600; margin-bottom: .3rem; }
.chart .legend { font-weight: 400; color: var(--soft); padding-left: 1.6rem; margin: .3rem 0; }
.chart svg { width: 100%; height: auto; display: block; }
.chart svg text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  fill: var(--ink); }
.chart svg .soft { fill: var(--soft); } .chart svg .grid { stroke: var(--line); }
.chart svg .axis { stroke: var(--soft); } .chart svg .dash { stroke: var(--soft); stroke-dasharray: 4 4; }
.chart svg .whisker { stroke: var(--ink); stroke-width: 1.5; }
.chart svg .line { fill: none; stroke-width: 2; }
.chart svg .halo { paint-order: stroke; stroke: var(--ground); stroke-width: 3px; }
details { margin: .4rem 0; } summary { cursor: pointer; color: var(--link); font-size: .875rem; }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .9em; overflow-wrap: anywhere; }
footer { margin-top: 3rem; padding-bottom: 2rem; color: var(--soft); font-size: .875rem; }
@media print { .skip, nav { display: none; } section { break-inside: avoid-page; } }
"""
WIDE = 32  # letters of a cell, from which on its column may not be squeezed
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Html(str):
    """Text that is HTML already, and is not escaped again."""

    __slots__ = ()


def escape(text: str) -> Html:
    """Text as HTML; what is HTML already stays as it is."""
    return text if isinstance(text, Html) else Html(html.escape(text))


def page(title: str, sections: Sequence[tuple[str, str]], *, lead: str = "") -> str:
    """A whole page, to be written as UTF-8.

    sections: (heading, HTML) pairs in order; the table of contents is made of the headings.
    lead: what the page is about, below its title; text, or Html.
    """
    anchors = _anchors([heading for heading, _ in sections])
    contents = "".join(
        f'<li><a href="#{anchor}">{escape(heading)}</a></li>\n'
        for anchor, (heading, _) in zip(anchors, sections, strict=True)
    )
    bodies = "".join(
        f'<section aria-labelledby="{anchor}">\n<h2 id="{anchor}">{escape(heading)}</h2>\n'
        f"{body}\n</section>\n"
        for anchor, (heading, body) in zip(anchors, sections, strict=True)
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f'<a class="skip" href="#main">Skip to the content</a>\n<header>\n<h1>{escape(title)}</h1>\n'
        + (f'<div class="lead">{escape(lead)}</div>\n' if lead else "")
        + f'<nav aria-label="Contents">\n<ol>\n{contents}</ol>\n</nav>\n</header>\n'
        f'<main id="main" tabindex="-1">\n{bodies}</main>\n'
        "<footer>For research; not a medical device. This file loads nothing from the network.</footer>\n"
        "</body>\n</html>\n"
    )


def _anchors(headings: Sequence[str]) -> list[str]:
    """An id for each heading, made of its letters and digits; a repeated one is numbered."""
    seen: dict[str, int] = {}
    anchors = []
    for heading in headings:
        name = "s-" + (re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-") or "section")
        seen[name] = seen.get(name, 0) + 1
        anchors.append(name if seen[name] == 1 else f"{name}--{seen[name]}")
    return anchors


def paragraph(text: str, *, note: bool = False) -> Html:
    """A paragraph; a note is printed softer."""
    kind = ' class="note"' if note else ""
    return Html(f"<p{kind}>{escape(text)}</p>\n")


def heading(text: str) -> Html:
    """A heading inside a section; it is not in the table of contents."""
    return Html(f"<h3>{escape(text)}</h3>\n")


def bullets(lines: Sequence[str]) -> Html:
    """A list, one line each; nothing for none."""
    return Html(
        "<ul>\n" + "".join(f"<li>{escape(line)}</li>\n" for line in lines) + "</ul>\n" if lines else ""
    )


def code(text: str) -> Html:
    """A command or a file's name."""
    return Html(f"<code>{escape(text)}</code>")


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str = "", label: str = ""
) -> Html:
    """A table that scrolls inside itself.

    Columns whose header ends in '>' are aligned to the right; the sign is not shown. The first cell of a
    row names it. label: what it holds, for screen readers, where there is no caption.
    Raises InputError where a row has another number of cells than the header.
    """
    marks = []
    for column, title in enumerate(header):
        longest = max((len(row[column]) for row in rows if column < len(row)), default=0)
        wide = ' class="wide"' if longest > WIDE else ""
        marks.append(' class="right"' if title.endswith(">") else wide)
    head = "".join(
        f'<th scope="col"{mark}>{escape(title.removesuffix(">"))}</th>'
        for title, mark in zip(header, marks, strict=True)
    )
    lines = []
    for row in rows:
        if len(row) != len(header):
            raise InputError(f"a row of the table has {len(row)} cells, expected {len(header)}: {tuple(row)}")
        cells = [f'<th scope="row"{marks[0]}>{escape(row[0])}</th>']
        cells += [f"<td{mark}>{escape(cell)}</td>" for cell, mark in zip(row[1:], marks[1:], strict=True)]
        lines.append(f"<tr>{''.join(cells)}</tr>\n")
    label = html.escape(
        label or caption or f"Table: {', '.join(title.removesuffix('>') for title in header)}"
    )
    return Html(
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">\n<table>\n'
        + (f"<caption>{escape(caption)}</caption>\n" if caption else "")
        + f"<thead><tr>{head}</tr></thead>\n<tbody>\n{''.join(lines)}</tbody>\n</table>\n</div>\n"
    )


def image_uri(
    pixels: npt.NDArray[np.uint8], *, longest: int | None = None, jpeg_quality: int | None = None
) -> str:
    """uint8 (H, W) or (H, W, 3) RGB as a data URI: PNG, or JPEG of a quality from 1 to 100.

    longest: most pixels of the longer side; a larger image is shrunk by area, a smaller one stays.
    Raises InputError for an array of another kind.
    """
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise InputError(
            f"a picture is {pixels.dtype} {pixels.shape}, expected uint8 (height, width[, 3]) in RGB order"
        )
    height, width = pixels.shape[:2]
    if longest is not None and max(height, width) > longest:
        scale = longest / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    stored = pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[:, :, ::-1])  # BGR
    if jpeg_quality is None:
        kind, (ok, encoded) = "png", cv2.imencode(".png", stored)
    else:
        kind, (ok, encoded) = "jpeg", cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])
    if not ok:
        raise InputError(f"OpenCV could not encode a picture of shape {pixels.shape} as {kind}")
    return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}"


def picture(uri: str, alt: str, caption: str = "") -> Html:
    """A picture from `image_uri`. alt: what it shows, for those who do not see it."""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return Html(
        f'<figure><img loading="lazy" src="{html.escape(uri)}" alt="{html.escape(alt)}">{below}</figure>\n'
    )


def gallery(pictures: Sequence[Html]) -> Html:
    """Pictures side by side, as many as the width holds."""
    return Html(f'<div class="gallery">\n{"".join(pictures)}</div>\n')


def side_by_side(charts: Sequence[Html]) -> Html:
    """Charts in two columns, or one on a phone."""
    return Html(f'<div class="charts">\n{"".join(charts)}</div>\n')


def details(summary: str, body: Html) -> Html:
    """What is shown only when asked for."""
    return Html(f"<details><summary>{escape(summary)}</summary>\n{body}</details>\n")
