from __future__ import annotations

from tumorseg_benchmarks.tables import Table

TABLE = Table(("name", "ms>"), (("a", "1.5"), ("long | name", "12")))


def test_text_pads_and_aligns_numbers_to_the_right() -> None:
    assert TABLE.to_text() == (
        "name          ms\n-----------  ---\na            1.5\nlong | name   12\n"
    )  # fmt: skip


def test_markdown_escapes_pipes() -> None:
    assert TABLE.to_markdown() == "| name | ms |\n| --- | ---: |\n| a | 1.5 |\n| long \\| name | 12 |\n"
