"""`docs/traceability.md`, and what is wrong with the list that it is made of."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from claims.claims import CLAIMS, NO_CLAIM, WHOLE
from reliability.rows import ROWS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/traceability.md"
HEAD = """\
# Traceability

What README and docs claim, and the test or command that shows it. Made by `python -m claims` (with `tests/`
in `PYTHONPATH`) of `tests/claims/claims.py`. A test fails where the words no longer stand in the page, where
a test or command no longer exists, where this page is old, and where a bullet or table row of these sections
has no line here:
"""


def text() -> str:
    """The page."""
    sections = "; ".join(f"{page}: {', '.join(headings)}" for page, headings in WHOLE.items())
    lines = [HEAD, f"{sections}.", "", "| page | claim | shown by |", "|---|---|---|"]
    for claim in CLAIMS:
        says = claim.says.replace("|", "\\|").strip(" \\|")
        lines.append(f"| {claim.page} | {says} | {', '.join(f'`{one}`' for one in claim.shown)} |")
    return "\n".join(lines) + "\n"


def faults() -> Iterator[str]:
    """Claims that nothing shows, words that no page has, and lines of a page that no claim quotes."""
    pages = {name: flat((ROOT / name).read_text(encoding="utf-8")) for name in {one.page for one in CLAIMS}}
    for claim in CLAIMS:
        if flat(claim.says) not in pages[claim.page]:
            yield f"{claim.page} no longer says '{claim.says}'"
        for one in claim.shown:
            if not exists(one):
                yield f"{claim.page}, '{claim.says}': {one} does not exist"
    for name, headings in WHOLE.items():
        quoted = [flat(one.says) for one in CLAIMS if one.page == name] + [flat(one) for one in NO_CLAIM]
        for heading in headings:
            found = list(entries((ROOT / name).read_text(encoding="utf-8"), heading))
            if not found:
                yield f"{name} has no section '{heading}' with bullets, rows or text"
            for entry in found:
                if not any(one in entry for one in quoted):
                    yield f"{name}, {heading}: no claim quotes '{entry[:80]}'"


def entries(page: str, heading: str) -> Iterator[str]:
    """Bullets and rows of a section, up to the next heading; its text where it has neither."""
    section = re.split(rf"^#+ {re.escape(heading)}$", page, maxsplit=1, flags=re.MULTILINE)
    if len(section) < 2:
        return
    body = re.split(r"^#+ ", section[1], maxsplit=1, flags=re.MULTILINE)[0]
    body = re.sub(r"^```.*?^```", "", body, flags=re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\|.*\|$", body, flags=re.MULTILINE)[2:]
    bullets = re.findall(r"^- .*(?:\n  .*)*", body, flags=re.MULTILINE)
    yield from map(flat, rows + bullets or [body])


def exists(shown: str) -> bool:
    """Whether a test, a target of make with a row, or a command is there."""
    if shown.startswith("tests/"):
        file, _, name = shown.partition("::")
        path = ROOT / file
        if not path.is_file():
            return False
        tests = {
            one.name for one in ast.walk(ast.parse(path.read_text())) if isinstance(one, ast.FunctionDef)
        }
        return name in tests if name else any(one.startswith("test_") for one in tests)
    words = shown.split()
    if words[0] == "make":
        row = words[1] != "reliability" or words[2] in ROWS
        return row and f"\n{words[1]}:" in (ROOT / "Makefile").read_text()
    if words[0] == "tumorseg":
        return f"\n{words[1]} = " in (ROOT / "pyproject.toml").read_text()
    if words[:2] == ["python", "-m"]:
        return any((ROOT / one / words[2].replace(".", "/")).is_dir() for one in ("benchmarks", "tests"))
    return shown in (ROOT / "SECURITY.md").read_text()


def flat(words: str) -> str:
    """Words with single spaces between them."""
    return " ".join(words.split())
