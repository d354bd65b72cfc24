"""Tables for the terminal and for Markdown, from the same cells."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from tumorseg_train.report.tables import markdown_table, text_table


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells as text. Columns whose header ends in '>' are aligned to the right; the sign is not shown."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def to_text(self) -> str:
        """For the terminal: columns padded with spaces, a rule below the header."""
        return text_table(self.header, self.rows)

    def to_markdown(self) -> str:
        """For Markdown: a pipe in a cell is escaped."""
        return markdown_table(self.header, self.rows)


def error_cell(errors: Sequence[float | None], passed: bool) -> str:
    """The largest error of the logits; '-' for a deploy form, which gives masks alone and passes without one.

    None is how JSON holds an error that is not finite.
    """
    finite = [error for error in errors if error is not None and math.isfinite(error)]
    if not finite or len(finite) < len(errors):
        return "-" if passed else "not finite"
    return f"{max(finite):.2g}"
