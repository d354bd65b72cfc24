import base64
import hashlib
import re
import subprocess
import sys
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from tumorseg_runtime.core.errors import InputError
from tumorseg_train.data.phantoms import draw_breast
from tumorseg_train.report import case_view, page

VOID = {"meta", "img", "br", "hr", "input"}


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


def case(seed: int, size: int = 512) -> case_view.PageCase:
    pixels, truth = draw_breast(np.random.default_rng(seed), (size, size), 1)
    return case_view.page_case(f"case {seed}", "figures", pixels, truth, np.roll(truth, 9, axis=1))


def test_the_page_is_whole_and_loads_nothing() -> None:
    text = page.page(
        "Title <1>",
        page.Verdict(page.REFUSED, "what <it> is"),
        page.table(("a", "b"), [("x", "1"), ("y", "2")]),
        cases=[case(0, 64)],
        folded=[("A & B", page.paragraph("body"))],
        banner="busy & loud",
        lead="about",
    )
    reader = Reader(text)
    assert len(set(reader.ids)) == len(reader.ids)
    assert {"Title <1>", "A & B", " what <it> is", " busy & loud", "about"} <= set(reader.texts)
    assert (
        text.index("what &lt;it&gt;")
        < text.index("<table")
        < text.index('class="viewer"')
        < text.index("A &amp; B")
    )
    assert not re.search(r"https?://|url\(|@import|<link", text)
    assert "prefers-color-scheme: dark" in text
    assert "width=device-width" in text
    assert '<main id="main" tabindex="-1">' in text  # the skip link's target takes the focus


def test_only_our_own_script_may_run() -> None:
    text = page.page("T", page.Verdict(page.PASSED, "fine"), page.table(("a",), [("x",)]))
    script = text.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in text
    )
    assert text.count("<script") == 1


@pytest.mark.slow
def test_forty_cases_stay_below_a_page_s_weight() -> None:
    cases = [case(seed % 4) for seed in range(40)]
    text = page.page("T", page.Verdict(page.PASSED, "fine"), page.table(("a",), [("x",)]), cases=cases)
    assert len(text.encode()) < 1_500_000


def test_flips_are_false_positives_and_negatives_in_colours() -> None:
    truth, mask = np.zeros((2, 8, 9), bool)
    truth[1, 1:3], mask[1, 2:4] = True, True
    raw = base64.b64decode(case_view.flips_uri(truth, mask).partition("base64,")[2])
    pixels = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    found = {(int(y), int(x)): tuple(pixels[y, x, 2::-1].tolist()) for y, x in np.argwhere(pixels[:, :, 3])}
    assert found == {(1, 1): case_view.TRUTH, (1, 3): case_view.MASK}
    grown = base64.b64decode(case_view.flips_uri(truth, mask, 3).partition("base64,")[2])
    larger = cv2.imdecode(np.frombuffer(grown, np.uint8), cv2.IMREAD_UNCHANGED)
    assert larger is not None
    assert (larger[:, :, 3] > 0).sum() > 9


def test_text_is_escaped_once() -> None:
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
    assert text.count('<th scope="row" role="rowheader">') == 2
    assert text.count('<td role="cell" class="right">') == 2
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

    assert np.array_equal(decode(case_view.image_uri(pixels)), pixels)
    assert np.array_equal(decode(case_view.image_uri(pixels[:, :, 0])), pixels[:, :, 0])
    assert decode(case_view.image_uri(pixels, longest=15)).shape == (10, 15, 3)
    assert decode(case_view.image_uri(pixels, longest=500)).shape == (20, 30, 3)
    flat = np.full((16, 16, 3), (200, 20, 20), np.uint8)
    jpeg = case_view.image_uri(flat, jpeg_quality=95)
    assert jpeg.startswith("data:image/jpeg;base64,")
    assert np.abs(decode(jpeg).astype(int) - flat).max() < 10
    with pytest.raises(InputError, match=r"float64 \(20, 30\), expected uint8"):
        case_view.image_uri(np.zeros((20, 30)))


@pytest.mark.process
def test_neither_page_nor_charts_load_torch() -> None:
    script = (
        "import sys, tumorseg_train.report.charts\n"
        "loaded = {'torch', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
