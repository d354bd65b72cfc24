"""Tables for the terminal and for Markdown, from the same cells."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells as text. Columns whose header ends in '>' are aligned to the right; the sign is not shown."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def to_text(self) -> str:
        """For the terminal: columns padded with spaces, a rule below the header."""
        titles = [title.rstrip(">") for title in self.header]
        widths = [max(map(len, column)) for column in zip(titles, *self.rows, strict=True)]
        lines = [self._pad(titles, widths), "  ".join("-" * width for width in widths)]
        lines += [self._pad(row, widths) for row in self.rows]
        return "\n".join(lines) + "\n"

    def to_markdown(self) -> str:
        """For Markdown: a pipe in a cell is escaped."""
        marks = ["---:" if title.endswith(">") else "---" for title in self.header]
        titles = [title.rstrip(">") for title in self.header]
        lines = [titles, marks, *(tuple(cell.replace("|", "\\|") for cell in row) for row in self.rows)]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def _pad(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        padded = [
            cell.rjust(width) if title.endswith(">") else cell.ljust(width)
            for cell, width, title in zip(cells, widths, self.header, strict=True)
        ]
        return "  ".join(padded).rstrip()
