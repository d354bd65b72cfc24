import base64
import re
import subprocess
import sys
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from tumorseg_runtime.core.errors import InputError
from tumorseg_train.report import page

VOID = {"meta", "img", "br", "hr"}


class Reader(HTMLParser):
    """Fails on a tag that is not closed in its place; collects text, ids and links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        values = dict(attrs)
        self.ids += [values["id"] or ""] if "id" in values else []
        self.links += [values["href"] or ""] if "href" in values else []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_is_whole_and_loads_nothing() -> None:
    pixels = np.zeros((4, 4), np.uint8)
    body = page.gallery([page.picture(page.image_uri(pixels), "black", "caption")])
    text = page.page("Title <1>", [("A & B", body), ("A B", "x"), ("…", "y")], lead="what <it> is")
    reader = Reader(text)
    anchors = [link.removeprefix("#") for link in reader.links]
    assert anchors == ["main", "s-a-b", "s-a-b--2", "s-section"]
    assert set(anchors) <= set(reader.ids)
    assert len(set(reader.ids)) == len(reader.ids)
    assert {"Title <1>", "A & B", "what <it> is", "caption"} <= set(reader.texts)
    assert "default-src 'none'" in text
    assert not re.search(r"https?://|url\(|@import|<script|<link", text)
    assert "prefers-color-scheme: dark" in text
    assert "width=device-width" in text
    assert '<main id="main" tabindex="-1">' in text  # the skip link's target takes the focus


def test_text_is_escaped_once() -> None:
    assert page.escape("<b>") == "&lt;b&gt;"
    assert page.escape(page.escape("<b>")) == "&lt;b&gt;"
    assert page.paragraph(page.code("a<b")) == "<p><code>a&lt;b</code></p>\n"
    assert page.bullets([]) == ""
    assert Reader(page.bullets(["<i>", "two"])).texts.count("<i>") == 1
    hostile = page.picture('x" onerror="1', 'y" onload="1')
    assert 'onerror="' not in hostile
    assert 'onload="' not in hostile


def test_a_table_names_its_rows_and_columns_and_can_be_scrolled_by_keyboard() -> None:
    text = page.table(("class", "Dice>"), [("be<nign", "0.7"), ("x", page.code("1"))], caption="Dice & class")
    reader = Reader(text)
    assert [t for t in reader.texts if t.strip()] == [
        "Dice & class",
        "class",
        "Dice",
        "be<nign",
        "0.7",
        "x",
        "1",
    ]
    assert text.count('<th scope="row">') == 2
    assert text.count('<td class="right">') == 2
    assert 'role="region" tabindex="0" aria-label="Dice &amp; class"' in text
    assert page.table(("a", "b"), [("x", "y" * 40)]).count('class="wide"') == 2  # the header and the cell
    with pytest.raises(InputError, match="has 1 cells, expected 2"):
        page.table(("a", "b"), [("only",)])


def test_pictures_keep_their_pixels() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)

    def decode(uri: str) -> np.ndarray:
        raw = base64.b64decode(uri.partition("base64,")[2])
        image = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)
        assert image is not None
        return image if image.ndim == 2 else image[:, :, ::-1]

    assert np.array_equal(decode(page.image_uri(pixels)), pixels)
    assert np.array_equal(decode(page.image_uri(pixels[:, :, 0])), pixels[:, :, 0])
    assert decode(page.image_uri(pixels, longest=15)).shape == (10, 15, 3)
    assert decode(page.image_uri(pixels, longest=500)).shape == (20, 30, 3)
    flat = np.full((16, 16, 3), (200, 20, 20), np.uint8)
    jpeg = page.image_uri(flat, jpeg_quality=95)
    assert jpeg.startswith("data:image/jpeg;base64,")
    assert np.abs(decode(jpeg).astype(int) - flat).max() < 10
    with pytest.raises(InputError, match=r"float64 \(20, 30\), expected uint8"):
        page.image_uri(np.zeros((20, 30)))


@pytest.mark.process
def test_neither_page_nor_charts_load_torch() -> None:
    script = (
        "import sys, tumorseg_train.report.charts\n"
        "loaded = {'torch', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
