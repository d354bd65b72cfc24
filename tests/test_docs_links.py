"""Links between the pages lead somewhere, and the site's navigation has every page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *DOCS.rglob("*.md")])
NOT_IN_THE_SITE = {"results/shipped/notes.md"}
LINK = re.compile(r"\]\(([^)\s]+)\)")


def text_of(page: Path) -> str:
    """The page without its code blocks, in which a hash is a comment and brackets are Python's."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The names that a page's headings have in links."""
    titles = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    lost = []
    for link in LINK.findall(text_of(page)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            lost.append(link)
    assert lost == []


def test_the_navigation_has_every_page() -> None:
    named = set(re.findall(r": ([\w/.+-]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE))
    assert named == {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} - NOT_IN_THE_SITE


def test_pictures_are_small_are_shown_and_have_a_command() -> None:
    script = (DOCS / "pictures.py").read_text(encoding="utf-8")
    files = sorted((DOCS / "images").iterdir())
    shown = {
        Path(name).name for page in PAGES for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text_of(page))
    }
    assert shown == {file.name for file in files}
    assert [file.name for file in files if f'"{file.name}"' not in script] == []
    assert len(files) >= 12
    assert sum(file.stat().st_size for file in files) < 1.5e6
