from __future__ import annotations

import math

from tumorseg_benchmarks.reports.summaries import error_cell
from tumorseg_train.report.tables import Table

TABLE = Table(("name", "ms>"), (("a", "1.5"), ("long | name", "12")))


def test_text_pads_and_aligns_numbers_to_the_right() -> None:
    assert TABLE.to_text() == (
        "name          ms\n-----------  ---\na            1.5\nlong | name   12\n"
    )  # fmt: skip


def test_markdown_escapes_pipes() -> None:
    assert TABLE.to_markdown() == "| name | ms |\n| --- | ---: |\n| a | 1.5 |\n| long \\| name | 12 |\n"


def test_masks_alone_have_no_error_and_logits_that_are_not_finite_say_so() -> None:
    assert error_cell([0.25, 1.5], True) == "1.5"
    assert error_cell([math.nan, math.nan], True) == error_cell([None], True) == error_cell([], True) == "-"
    assert error_cell([0.25, None], False) == error_cell([math.inf], False) == "not finite"
