"""The whole command, on a network that was trained for a few steps."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import BackendError, BundleError, InputError
from tumorseg_train.commands.evaluate import default_folder, evaluate, read_spacing
from tumorseg_train.data.split import SPLIT
from tumorseg_train.evaluation.evaluate import read_scores
from tumorseg_train.evaluation.evaluation_report import verdict
from tumorseg_train.evaluation.predictions import evaluate as evaluate_in_training
from tumorseg_train.networks.run import Run

pytestmark = pytest.mark.slow


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(evaluate, [str(argument) for argument in arguments], catch_exceptions=True)


def values_of(*arguments: object) -> dict[str, Any]:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output
    values: dict[str, Any] = json.loads(result.stdout)
    return values


@pytest.fixture
def run(tiny_run: Run, tmp_path: Path) -> Run:
    """A copy that a report may be written into, with curves."""
    shutil.copytree(tiny_run.root, tmp_path / "run")
    with (tmp_path / "run/curves.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [
                ("epoch", "train_loss", "val_loss", "val_dice", "seconds"),
                (1, 1.5, 1.4, 0.1, 3),
                (2, 1.1, 1.2, 0.5, 6),
            ]
        )
    return Run.open(tmp_path / "run")


def test_report_of_a_run(run: Run) -> None:
    result = invoke(run.root)
    assert result.exit_code == 0, result.output
    folder = run.root / "evaluation"
    assert f"report: {folder}/evaluation.html" in result.stderr
    assert result.stdout.splitlines()[-1].startswith(f"{run.root}: mean Dice 0.")
    values = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    markdown = (folder / "evaluation.md").read_text(encoding="utf-8")
    page = (folder / "evaluation.html").read_text(encoding="utf-8")
    figures, scores = evaluate_in_training(run.model(), run.manifest(), "test", run.contract)
    assert read_scores(values)[0].image == scores[0].image
    all_images = values["strata"]["all"][0]
    assert all_images["figures"]["mean_dice"]["value"] == pytest.approx(figures["mean_dice"])
    assert all_images["figures"]["pooled_f1"]["value"] == pytest.approx(figures["pooled_f1"])
    assert figures["intervals"]["mean_dice"] == pytest.approx(
        [all_images["figures"]["mean_dice"][end] for end in ("low", "high")]
    )
    dice = f"{figures['mean_dice']:.3f}"
    for text in (result.stdout, markdown, page):
        assert dice in text
        assert "size, 64x64 (height x width in pixels)" in text
        assert "How the split was made is not known" in text
        assert "Images without a tumour" in text
    assert markdown.count("## ") == 7
    pictures = sum(i["truth_px"] > 0 or i["predicted_px"] > 0 for i in values["images"])  # all of so few
    assert page.count("data:image/jpeg;base64,") == pictures >= 3
    for heading in ("Training", "Calibration", "Every image"):
        assert f"<h3>{heading}</h3>" in page
    assert "Among the worst: " in page
    assert 'class="verdict ' in page[: page.index("<table")]
    assert values["predictor"]["checkpoint_sha256"] == run.checkpoint_sha256


def test_training_figures_are_plain_json(run: Run) -> None:
    figures, _ = evaluate_in_training(run.model(), run.manifest(), "test", run.contract)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert set(figures["by_organ"]) == {"brain", "breast"}
    assert figures["images_with_tumour"] == 3


def test_a_bundle_is_judged_like_its_run(run: Run, tiny_bundle: Bundle, tmp_path: Path) -> None:
    of_run = values_of(run.root, "--out", tmp_path / "a")
    of_bundle = values_of(tiny_bundle.root, "--split", run.root, "--out", tmp_path / "b")
    assert of_bundle["predictor"]["backend"] == "onnxruntime"
    assert of_bundle["notes"] == []
    assert [row["predicted_px"] for row in of_bundle["images"]] == pytest.approx(
        [row["predicted_px"] for row in of_run["images"]], abs=2
    )
    half = values_of(
        tiny_bundle.root, "--split", run.root / SPLIT, "--data", run.data["root"], "--precision", "fp16",
        "--out", tmp_path / "c",
    )  # fmt: skip
    assert half["predictor"]["precision"] == "fp16"
    assert {path.name for path in (tmp_path / "c").iterdir()} == {
        f"evaluation.{s}" for s in ("html", "md", "json")
    }
    assert Bundle.open(tiny_bundle.root)  # still sealed: nothing was written into it


def test_other_parts_sizes_and_scales(run: Run, tmp_path: Path) -> None:
    training = values_of(run.root, "--part", "train", "--out", tmp_path / "a")
    assert len(training["images"]) == len(run.manifest().part("train"))
    assert training["notes"] == ["These are the images that it was trained on."]
    larger = values_of(run.root, "--size", "96", "--out", tmp_path / "b")
    assert (larger["height"], larger["images"][0]["pixels"]) == (96, 96 * 96)
    own = values_of(run.root, "--scale", "original", "--spacing", "brain=0.5", "--out", tmp_path / "c")
    item = run.manifest().part("test")[0]
    assert own["images"][0]["pixels"] == item.height * item.width
    assert own["strata"]["all"][0]["figures"]["hd95_mm"]["value"] > 0
    assert "each image's own size" in (tmp_path / "c/evaluation.md").read_text(encoding="utf-8")
    square = values_of(run.root, "--scale", "96", "--out", tmp_path / "d")
    assert (square["scale"], square["height"], square["images"][0]["pixels"]) == ("96", 64, 96 * 96)
    text = (tmp_path / "d/evaluation.md").read_text(encoding="utf-8")
    assert "The network runs at 64x64 (height x width in pixels); masks are compared at 96x96." in text


def test_images_that_it_was_trained_on_are_named(run: Run, tmp_path: Path) -> None:
    manifest = run.manifest()
    turned = {"train": "test", "test": "train", "val": "val"}
    items = tuple(dataclasses.replace(item, part=turned[item.part]) for item in manifest.items)
    dataclasses.replace(manifest, items=items).write(tmp_path / SPLIT)
    values = values_of(run.root, "--split", tmp_path / SPLIT, "--out", tmp_path / "out")
    assert values["notes"][0] == "It was not trained on this split."
    count = len(manifest.part("train"))
    assert values["notes"][1].startswith(f"{count} of these images were in its training part")


def refusal(*arguments: object) -> str:
    result = invoke(*arguments)
    assert isinstance(result.exception, (InputError, BundleError, BackendError)), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_refusals(run: Run, tiny_bundle: Bundle, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "no")
    assert "is a bundle, which holds no split" in refusal(tiny_bundle.root, *out)
    assert "is a bundle, whose size is fixed" in refusal(tiny_bundle.root, "--size", "96", *out)
    assert "is no bundle, got mnn" in refusal(run.root, "--backend", "mnn", *out)
    assert "input height is 100" in refusal(run.root, "--size", "100", *out)
    assert "has no run.json" in refusal(tmp_path, *out)
    assert "does not exist, expected a folder of images" in refusal(run.root, "--data", tmp_path / "x", *out)
    assert "is missing, expected the very data" in refusal(run.root, "--data", tmp_path, *out)
    assert "backend is 'fast'" in refusal(tiny_bundle.root, "--split", run.root, "--backend", "fast", *out)
    assert "expected ORGAN=MM" in refusal(run.root, "--spacing", "brain", *out)
    (tmp_path / "split.json").write_text("{}", encoding="utf-8")
    assert "is no split" in refusal(run.root, "--split", tmp_path, *out)
    assert not (tmp_path / "no").exists()


def test_spacing_and_folders() -> None:
    assert read_spacing(("brain=0.49", "liver=0.2")) == {"brain": 0.49, "liver": 0.2}
    for wrong in ("brain=0", "brain=-1", "brain=x", "=1", "brain=nan"):
        with pytest.raises(InputError, match="expected ORGAN=MM"):
            read_spacing((wrong,))
    assert default_folder(Path("/a/run"), True) == Path("/a/run/evaluation")
    assert default_folder(Path("/a/bundle"), False) == Path("/a/bundle.evaluation")


def test_the_verdict_is_red_amber_or_green() -> None:
    def state(dice: float, **data: object) -> str:
        estimate = {"value": dice, "low": dice - 0.1, "high": dice + 0.1}
        values = {
            "data": {"phantoms": False, "method": "grouped", "groups": 40, **data},
            "strata": {"all": [{"figures": {"mean_dice": estimate}}]},
            "threshold_baseline": {"mean_dice": 0.2},
        }
        return verdict(values).state

    assert state(0.7) == "passed"
    assert state(0.2) == "refused", "one threshold does as well"
    doubts = ({"phantoms": True}, {"method": "random"}, {"method": "unknown"}, {"groups": 9})
    assert [state(0.7, **doubt) for doubt in doubts] == ["unverified"] * 4
