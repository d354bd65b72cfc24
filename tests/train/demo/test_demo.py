"""The demo on the tiny bundle: it segments, verifies, and what is broken on purpose is refused and shown."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from click.testing import CliRunner

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import BundleError, CheckFailedError, InputError
from tumorseg_train.commands.demo import demo
from tumorseg_train.demo import broken_copies
from tumorseg_train.demo import demo as demo_module
from tumorseg_train.demo.broken_copies import break_copies
from tumorseg_train.demo.demo import SHIPPED, Demo, choose_artefact, draw_scenes, find_bundle, run_demo
from tumorseg_train.demo.demo_page import demo_page

MAX_PAGE, MAX_SHIPPED = 1_500_000, 16_000_000  # bytes
RUN = """
import sys
from pathlib import Path
import tumorseg_train.commands.demo, tumorseg_train.demo.demo_page
from tumorseg_runtime import Bundle, Segmenter
from tumorseg_train.demo.broken_copies import break_copies
from tumorseg_train.demo.demo import choose_artefact, draw_scenes
bundle = Bundle.open(sys.argv[1])
assert len(break_copies(bundle, choose_artefact(bundle))) == 2
Segmenter.open(bundle).predict([pixels for _, pixels, _ in draw_scenes()])
heavy = {  # the modules of the extras train and export; the demo has to do with those of cpu
    "albumentations", "h5py", "matplotlib", "onnx", "onnx_ir", "onnxscript", "pnnx", "pydantic",
    "pytorch_lightning", "safetensors", "scipy", "segmentation_models_pytorch", "tensorboard",
    "tomli", "torch", "torchvision",
}
loaded = heavy & set(sys.modules)
assert not loaded, loaded
"""


@pytest.fixture(scope="module")
def shown(tiny_bundle: Bundle, conformance_cut_short: Callable[[], AbstractContextManager[None]]) -> Demo:
    """The demo of the tiny bundle, verified with few of the conformance files."""
    with conformance_cut_short():
        return run_demo(tiny_bundle.root)


@pytest.mark.slow
def test_both_broken_copies_are_refused_and_the_bundle_stays_whole(shown: Demo, tiny_bundle: Bundle) -> None:
    seal, self_test = shown.refusals
    assert "model.onnx has the right size but other content (SHA-256 differs)" in seal.message
    assert "values of the preprocessed tensor differ, expected 0" in self_test.message
    assert all(refusal.message.startswith("broken-copy: ") for refusal in shown.refusals)
    assert Bundle.open(tiny_bundle.root).digest() == tiny_bundle.digest()


@pytest.mark.slow
def test_two_organs_with_and_without_a_tumour_the_same_each_time(shown: Demo) -> None:
    assert [bool(case.truth.any()) for case in shown.cases] == [True, True, False, False]
    again = draw_scenes()
    assert all((case.pixels == pixels).all() for case, (_, pixels, _) in zip(shown.cases, again, strict=True))
    assert {case.mask.shape for case in shown.cases} == {(512, 512)}


@pytest.mark.slow
def test_the_page_is_one_file_with_its_verdict_first(shown: Demo) -> None:
    page = demo_page(shown, [("my images", "tumorseg predict b scans/ --out masks")])
    body = page[page.index("<body>") :]
    assert body.index('class="verdict passed"') < body.index("<table")
    assert page.count("<img ") == 4 * len(shown.cases), "input, truth, mask and what differs"
    assert body.count('class="badge refused"') == len(shown.refusals)
    assert "http://" not in page
    assert "https://" not in page
    assert "prefers-color-scheme: dark" in page
    assert len(page.encode()) < MAX_PAGE
    for refusal in shown.refusals:
        assert html.escape(refusal.message) in page
    assert "tumorseg predict b scans/ --out masks" in page


def test_a_broken_copy_that_opens_is_a_failure(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broken_copies, "flip_bit", lambda path: None)
    with pytest.raises(CheckFailedError, match="expected the seal to refuse it: do not serve"):
        break_copies(tiny_bundle, choose_artefact(tiny_bundle))


@pytest.mark.slow
def test_the_command_ends_with_three_commands_and_a_verdict(
    shown: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_module, "run_demo", lambda root, log, tell: shown)
    root, out = str(shown.bundle.root), tmp_path / "pages" / "demo.html"
    run = CliRunner().invoke(demo, ["--bundle", root, "--out", str(out)])
    assert run.exit_code == 0, run.output
    lines = run.stdout.splitlines()
    assert [line.split("tumorseg ")[1].split()[0] for line in lines[-4:-1]] == ["predict", "export", "verify"]
    assert f"tumorseg predict {root} scans/ --precision fp32" in lines[-4]
    assert "both broken copies were refused" in lines[-1]
    assert out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    values = json.loads(CliRunner().invoke(demo, ["--json", "--bundle", root, "--out", str(out)]).stdout)
    assert [refusal["guard"] for refusal in values["refusals"]] == ["seal", "self-test"]
    assert values["verification"]["passed"] is True
    assert values["page"] == str(out)


def test_no_bundle_is_one_line_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_module, "SHIPPED", tmp_path)
    with pytest.raises(InputError, match=r"give --bundle PATH \(made by `tumorseg export") as error:
        find_bundle(None)
    assert "\n" not in str(error.value)
    with pytest.raises(BundleError, match="a bundle made by `tumorseg export`"):
        run_demo(tmp_path)


@pytest.mark.process
def test_neither_torch_nor_a_connection_is_used(
    tiny_bundle: Bundle, run_guarded: Callable[..., list[str]]
) -> None:
    assert run_guarded(RUN, tiny_bundle.root) == []


@pytest.mark.slow
@pytest.mark.usefixtures("few_conformance_files")
@pytest.mark.skipif(not SHIPPED.exists(), reason="no bundle ships with this package")
def test_the_shipped_bundle_is_small_and_holds_no_image_of_a_patient() -> None:
    shown = run_demo(SHIPPED)
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) <= MAX_SHIPPED
    assert shown.bundle.provenance["golden_images"].startswith("phantoms")
