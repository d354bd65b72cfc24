"""The one page of the project: every command that shows something to people writes it.

First the verdict in one sentence, then one table, then the cases one by one, and everything else folded. A
page is one file that loads nothing: pictures are data URIs, charts inline SVG
(`tumorseg_train.report.charts`), and its content policy lets run only the script that it was written with;
without script all is there, but unsorted and unzoomed. Light or dark as the reader's system is. Needs jinja2,
numpy and OpenCV, never torch.

Jinja2 escapes all text; what is HTML already has the type `Markup`.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from tumorseg_runtime.core.errors import InputError
from tumorseg_train.report.case_view import PageCase, Words
from tumorseg_train.report.tables import Table

PASSED, REFUSED, UNVERIFIED = "passed", "refused", "unverified"  # green, red, amber
WIDE = 32  # letters of a cell, from which on its column may not be squeezed
TEMPLATES = Path(__file__).parent / "templates"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """state: PASSED, REFUSED or UNVERIFIED. text: one sentence. word: shown in place of the state."""

    state: str
    text: str
    word: str = ""


def page(
    title: str,
    verdict: Verdict,
    table: Markup,
    *,
    cases: Sequence[PageCase] = (),
    words: Words | None = None,
    folded: Sequence[tuple[str, Markup]] = (),
    banner: str = "",
    lead: str = "",
) -> str:
    """A whole page, to be written as UTF-8.

    cases: for the viewer; words: what it calls truth and mask. folded: (heading, body) pairs, in order.
    banner: why the times on the page are not to be trusted. lead: what the page is about.
    """
    style, script = (
        Markup((TEMPLATES / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        _environment()
        .get_template("page.html")
        .render(
            title=title,
            verdict=verdict,
            banner=banner,
            lead=lead,
            table=table,
            viewer=_block("viewer", cases, words or Words()) if cases else "",
            folded=folded,
            policy=Markup(policy),
            style=style,
            script=script,
        )
    )


def paragraph(text: str, *, note: bool = False) -> Markup:
    """A paragraph; a note is printed softer."""
    return _block("paragraph", text, note)


def heading(text: str) -> Markup:
    """A heading inside a folded section."""
    return _block("heading", text)


def bullets(lines: Sequence[str]) -> Markup:
    """A list, one line each; nothing for none."""
    return _block("bullets", lines) if lines else Markup()


def code(text: str) -> Markup:
    """A command or a file's name."""
    return _block("code", text)


def badge(state: str) -> Markup:
    """PASSED, REFUSED or UNVERIFIED as a word with its sign and colour."""
    return _block("badge", state)


def details(summary: str, body: Markup) -> Markup:
    """What is shown only when asked for."""
    return _block("details", summary, body)


def picture(uri: str, alt: str, caption: str = "") -> Markup:
    """A picture from `image_uri`. alt: what it shows, for those who do not see it."""
    return _block("picture", uri, alt, caption)


def side_by_side(charts: Sequence[Markup]) -> Markup:
    """Charts in columns, or one on a phone."""
    return _block("grid", "charts", charts)


def chart(title: str, spoken: str, svg: Markup, below: Markup) -> Markup:
    """A drawing with its title. spoken: what it shows, for those who do not see it. below: its key."""
    return _block("chart", title, spoken, svg, below)


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str = "",
    label: str = "",
    cards: bool = False,
) -> Markup:
    """A table that is sorted by a click on a column's title, and scrolls inside itself.

    Columns whose header ends in '>' are aligned to the right; the sign is not shown. The first cell of a
    row names it. label: what it holds, for screen readers, where there is no caption. cards: on a phone each
    row becomes a card, so that nothing has to be scrolled.
    Raises InputError where a row has another number of cells than the header.
    """
    for row in rows:
        if len(row) != len(header):
            raise InputError(f"a row of the table has {len(row)} cells, expected {len(header)}: {tuple(row)}")
    columns = []
    for index, title in enumerate(header):
        longest = max((len(Markup(row[index]).striptags()) for row in rows), default=0)
        kind = "right" if title.endswith(">") else "wide" if longest > WIDE else ""
        columns.append({"title": title.removesuffix(">"), "kind": kind})
    spoken = label or caption or f"Table: {', '.join(filter(None, (each['title'] for each in columns)))}"
    return _block("table", columns, rows, caption, spoken, cards)


def captioned(each: Table, *, caption: bool = False, cards: bool = False) -> Markup:
    """A table with its note below it. caption: its title is shown, too, where no heading does."""
    shown = each.title if caption else ""
    below = paragraph(each.note, note=True) if each.note else ""
    return table(each.header, each.rows, caption=shown, label=each.title, cards=cards) + below


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )


def _block(name: str, *values: Any) -> Markup:
    """A macro of templates/blocks.html."""
    return Markup(getattr(_environment().get_template("blocks.html").module, name)(*values))
