"""Each claim of README and docs has a test or command that shows it, and the page says so."""

from __future__ import annotations

import pytest

from claims import page


def test_no_claim_is_without_evidence_and_no_line_without_a_claim() -> None:
    assert list(page.faults()) == []


def test_the_page_is_of_this_list() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.text(), "python -m claims writes it anew"


def test_the_check_finds_what_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert page.exists("tests/claims/test_claims.py::test_the_check_finds_what_it_is_for")
    for gone in (
        "tests/claims/test_claims.py::test_gone", "tests/gone.py", "make gone", "make reliability gone",
        "tumorseg gone", "python -m tumorseg_benchmarks.gone", "a tool of nobody",
    ):  # fmt: skip
        assert not page.exists(gone), gone
    text = "## A\n- one\n  more\n- two\n\n| a |\n|---|\n| row |\n## B\n- three\n## C\nwords\n"
    assert list(page.entries(text, "A")) == ["| row |", "- one more", "- two"]
    assert list(page.entries(text, "C")) == ["words"]
    monkeypatch.setattr(page, "CLAIMS", page.CLAIMS[1:])
    monkeypatch.setattr(page, "NO_CLAIM", ())
    assert any("no claim quotes" in fault for fault in page.faults())
