"""What a report leaves beside its page (`tumorseg_train.report.page`): JSON for machines, Markdown for
people."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from tumorseg_runtime.core.files import make_folder, write_text
from tumorseg_runtime.core.records import to_json
from tumorseg_runtime.core.text import printable


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells as text. Columns whose header ends in '>' are aligned to the right; the sign is not shown.

    title: what it holds. note: how to read it.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    note: str = ""

    def to_markdown(self) -> str:
        """A pipe in a cell is escaped."""
        marks = ["---:" if title.endswith(">") else "---" for title in self.header]
        lines = [[title.removesuffix(">") for title in self.header], marks]
        lines += [[printable(cell).replace("|", "\\|") for cell in row] for row in self.rows]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def to_text(self) -> str:
        """For the terminal: columns padded with spaces, a rule below the header."""
        right = [title.endswith(">") for title in self.header]
        titles = [title.removesuffix(">") for title in self.header]
        rows = [[printable(cell) for cell in row] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
        lines = [titles, ["-" * width for width in widths], *rows]
        return "".join(
            "  ".join(
                cell.rjust(width) if mark else cell.ljust(width)
                for cell, width, mark in zip(line, widths, right, strict=True)
            ).rstrip()
            + "\n"
            for line in lines
        )


def write_report(out: Path, name: str, *, values: dict[str, Any], markdown: str, page: str) -> None:
    """Write `<name>.json`, `<name>.md` and `<name>.html` into `out`, each whole or not at all."""
    make_folder(out)
    for suffix, text in (("json", json_text(values)), ("md", markdown), ("html", page)):
        write_text(out / f"{name}.{suffix}", text)


def json_text(values: dict[str, Any]) -> str:
    """JSON text; JSON has no NaN and no infinity: they become null."""
    return to_json(_finite(values), indent=1)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def number(value: float | None) -> str:
    """Three significant digits, all those before the point, and no trailing zeros; '-' for None and NaN."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
