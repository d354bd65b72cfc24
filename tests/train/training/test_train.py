"""A real training of a small network on a few phantoms, through the command line."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from tumorseg_runtime.core.errors import BundleError, InputError, TumorsegError
from tumorseg_train.commands.train import move_aside, train
from tumorseg_train.config.plan import InitialWeights, TrainingPlan
from tumorseg_train.config.recipe import load_recipe
from tumorseg_train.data.phantoms import NOTE
from tumorseg_train.data.split import SPLIT
from tumorseg_train.evaluation.predictions import evaluate
from tumorseg_train.networks.initial import initial_weights, load_initial_weights
from tumorseg_train.networks.mirrored import Mirrored
from tumorseg_train.networks.run import CHECKPOINT, Run

pytestmark = pytest.mark.slow

SMALL = ["--arch", "unet", "--encoder", "resnet18", "--size", "64", "--encoder-weights", "none"]
SMALL += ["--epochs", "3", "--recipe"]


@pytest.fixture(scope="module")
def run(data: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "small"
    result = CliRunner().invoke(train, [str(data), "--out", str(out), *SMALL, str(recipe)])
    assert result.exit_code == 0, result.output
    return Run.open(out)


def test_learns(run: Run) -> None:
    with (run.root / "curves.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[-1]["train_loss"]) < 0.9 * float(rows[0]["train_loss"])
    assert run.metrics["validation"]["mean_dice"] == pytest.approx(
        max(float(row["val_dice"]) for row in rows), rel=1e-4
    )
    assert (run.root / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_checkpoint_is_what_was_judged(run: Run) -> None:
    manifest = run.manifest()
    again, scores = evaluate(run.model(), manifest, "test", run.contract)
    assert again == run.metrics["test"]
    validation, _ = evaluate(run.model(), manifest, "val", dataclasses.replace(run.contract, threshold=0.5))
    assert run.data["validation_images_used"] == len(manifest.part("val"))
    assert validation["mean_dice"] == pytest.approx(run.metrics["validation"]["mean_dice"], abs=1e-3)
    chosen, _ = evaluate(run.model(), manifest, "val", run.contract)
    assert run.metrics["threshold"]["threshold"] == run.contract.threshold
    for name in ("mean_dice", "pooled_f1"):
        assert chosen[name] == pytest.approx(run.metrics["threshold"][name], abs=1e-6)
    assert sum(chosen[name] - validation[name] for name in ("mean_dice", "pooled_f1")) >= 0
    with (run.root / "test_scores.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [item.image for item in manifest.part("test")]
    assert [int(row["predicted_px"]) for row in rows] == [score.predicted_px for score in scores]
    dice = [float(row["dice"]) for row in rows if row["truth_px"] != "0"]
    assert sum(dice) / len(dice) == pytest.approx(again["mean_dice"], rel=1e-4)


def test_the_run_tells_how_it_came_about(run: Run) -> None:
    values = json.loads((run.root / "run.json").read_text(encoding="utf-8"))
    assert values["contract"]["height"] == 64
    assert values["training"]["recipe"]["crop"] == 32
    assert values["training"]["recipe"]["epochs"] == 3
    assert values["data"]["phantoms"] is True
    assert values["training"]["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert str(run.root) not in json.dumps(values)


def test_logs_are_for_tensorboard_and_the_plan_is_there_to_go_on_with(run: Run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.root / "tensorboard")).Reload()
    assert len(events.Scalars("train_loss_step")) == run.training["steps"]
    assert [event.value for event in events.Scalars("val_dice")][-1] == pytest.approx(
        float((run.root / "curves.csv").read_text(encoding="utf-8").splitlines()[-1].split(",")[3]), rel=1e-4
    )
    assert TrainingPlan.read(run.root).recipe == load_recipe(str(run.root / "recipe.toml"))
    assert {
        "name": TrainingPlan.read(run.root).recipe_name,
        **vars(TrainingPlan.read(run.root).recipe),
    } == run.training["recipe"]
    assert not list(run.root.glob("*.part"))
    assert not list(run.root.glob("epoch-*"))


def test_training_ends_early_without_progress(data: Path, recipe: Path, tmp_path: Path) -> None:
    """A learning rate of almost nothing finds no better Dice than that of the first epoch."""
    settings = ("patience=2", "learning_rate=1e-30", "accumulate=2", "gradient_clip=0.0", "loss=jaccard")
    arguments = [str(data), "--out", str(tmp_path / "early"), *SMALL, str(recipe), "--epochs", "6"]
    result = CliRunner().invoke(train, [*arguments, *(part for s in settings for part in ("--set", s))])
    assert result.exit_code == 0, result.output
    assert "no better Dice in 2 epochs: the training ends here" in result.output
    run = Run.open(tmp_path / "early")
    assert run.metrics["best_epoch"] + 2 == run.training["epochs"] < 6
    saved = torch.load(run.root / "resume.ckpt", weights_only=True)["callbacks"]
    (stopping,) = (state for name, state in saved.items() if name.startswith("EarlyStopping"))
    assert stopping["stopped_epoch"] == run.training["epochs"] - 1  # --resume would not train on


def test_a_loss_that_is_no_number_ends_the_training(data: Path, recipe: Path, tmp_path: Path) -> None:
    arguments = [
        str(data),
        "--out",
        str(tmp_path / "nan"),
        *SMALL,
        str(recipe),
        "--set",
        "learning_rate=1e30",
    ]
    result = CliRunner().invoke(train, arguments)
    assert isinstance(result.exception, TumorsegError)
    assert "training loss is nan in epoch 1, expected a finite number" in str(result.exception)
    assert not (tmp_path / "nan" / "run.json").exists()


@pytest.mark.fault
def test_damaged_runs_are_refused(run: Run, tmp_path: Path) -> None:
    for name in ("run.json", SPLIT, CHECKPOINT):
        (tmp_path / name).write_bytes((run.root / name).read_bytes())
    assert Run.open(tmp_path).manifest() == run.manifest()

    weights = bytearray((tmp_path / CHECKPOINT).read_bytes())
    weights[-1] ^= 1
    (tmp_path / CHECKPOINT).write_bytes(weights)
    with pytest.raises(BundleError, match=r"checkpoint\.safetensors: SHA-256 differs"):
        Run.open(tmp_path)

    (tmp_path / CHECKPOINT).write_bytes((run.root / CHECKPOINT).read_bytes())
    text = (tmp_path / SPLIT).read_text(encoding="utf-8")
    (tmp_path / SPLIT).write_text(text.replace('"part": "test"', '"part": "train"', 1), encoding="utf-8")
    with pytest.raises(BundleError, match=r"is not the split that run\.json names"):
        Run.open(tmp_path).manifest()

    (tmp_path / "run.json").write_text('{"schema": 99}', encoding="utf-8")
    with pytest.raises(BundleError, match="schema is 99, expected 1"):
        Run.open(tmp_path)
    (tmp_path / "run.json").unlink()
    with pytest.raises(BundleError, match="is it still training"):
        Run.open(tmp_path)


def test_a_run_is_moved_aside_and_nothing_else_is_touched(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert move_aside(out) is None
    out.mkdir()
    assert move_aside(out) is None
    (out / SPLIT).write_text("{}", encoding="utf-8")
    aside = move_aside(out)
    assert aside is not None
    assert (aside / SPLIT).is_file()
    assert not out.exists()
    out.mkdir()
    (out / "holiday.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="exists and is no run"):
        move_aside(out)


def test_impossible_trainings_are_refused_before_they_start(data: Path, recipe: Path, tmp_path: Path) -> None:
    def refusal(*arguments: str) -> str:
        result = CliRunner().invoke(train, [str(data), "--out", str(tmp_path / "no"), *SMALL, *arguments])
        assert isinstance(result.exception, InputError)
        return str(result.exception)

    assert "crop is 96, expected at most 64" in refusal("quick")
    assert "expected at least one batch of 1000" in refusal(str(recipe), "--batch-size", "1000")
    assert "input height is 100" in refusal(str(recipe), "--size", "100")
    assert "16-mixed" in refusal("full") or torch.cuda.is_available()
    assert "loss is 'wing', expected one of dice+bce" in refusal(str(recipe), "--set", "loss=wing")
    assert "validation images for 9 processes" in refusal(str(recipe), "--devices", "3", "--nodes", "3")
    assert "architecture is 'vnet'" in refusal(str(recipe), "--arch", "vnet")
    assert not (tmp_path / "no").exists()
    none = CliRunner().invoke(train, [str(data), "--out", str(tmp_path / "no"), "--devices", "0"])
    assert "'--devices': 0 is not in the range x>=1" in none.output


@pytest.fixture(scope="module")
def continued(data: Path, recipe: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A training of a larger size from the run's weights, with a learning rate of almost nothing."""
    out = tmp_path_factory.mktemp("runs") / "continued"
    arguments = [str(data), "--out", str(out), *SMALL[:4], "--size", "96", "--recipe", str(recipe)]
    arguments += ["--epochs", "1", "--init", str(run.root)]
    arguments += ["--set", "learning_rate=1e-30", "--set", "weight_decay=0.0"]
    result = CliRunner().invoke(train, arguments)
    assert result.exit_code == 0, result.output
    return Run.open(out)


def test_a_training_starts_from_a_runs_weights_at_another_size(run: Run, continued: Run) -> None:
    assert continued.contract.height == 96
    for (name, before), (_, after) in zip(
        run.model().named_parameters(), continued.model().named_parameters(), strict=True
    ):
        assert torch.equal(before, after), name
    expected = {"path": str(run.root.resolve() / CHECKPOINT), "sha256": run.checkpoint_sha256}
    assert continued.training["initial_weights"] == expected
    assert dataclasses.asdict(TrainingPlan.read(continued.root))["initial_weights"] == expected
    assert continued.training["recipe"]["encoder_weights"] == "none"
    assert run.training["initial_weights"] is None


def test_a_training_starts_from_a_file_or_from_a_run_that_was_broken_off(
    run: Run, continued: Run, tmp_path: Path
) -> None:
    contract = dataclasses.replace(run.contract, height=128)
    found = initial_weights(run.root / CHECKPOINT, "unet", "resnet18", contract)
    assert found.sha256 == run.checkpoint_sha256
    broken_off = tmp_path / "broken off"
    broken_off.mkdir()
    (broken_off / "plan.json").write_bytes((run.root / "plan.json").read_bytes())
    with pytest.raises(InputError, match="has no weights yet, expected a whole epoch at least"):
        initial_weights(broken_off, "unet", "resnet18", contract)
    for root, name in ((continued.root, "epoch-0001.safetensors"), (run.root, "epoch-0003.safetensors")):
        (broken_off / name).write_bytes((root / CHECKPOINT).read_bytes())
    assert initial_weights(broken_off, "unet", "resnet18", contract).sha256 == run.checkpoint_sha256


def test_weights_of_another_network_are_refused_before_the_training(
    data: Path, recipe: Path, run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def refusal(*arguments: str) -> str:
        result = CliRunner().invoke(train, [str(data), "--out", str(out), *arguments])
        assert isinstance(result.exception, InputError), result.output
        assert not (out / "split.json").exists()
        return str(result.exception)

    unet = [*SMALL[:4], "--recipe", str(recipe), "--size", "64"]
    wide = ["--encoder", "resnet34", "--recipe", str(recipe), "--arch", "unet"]
    assert "encoder is resnet18, expected resnet34" in refusal(*wide, "--init", str(run.root))
    assert "do not fit: missing" in refusal(*wide, "--init", str(run.root / CHECKPOINT))
    assert "has no run.json and no plan.json" in refusal(*unet, "--init", str(tmp_path))
    assert "nothing: does not exist, expected a run or a file of weights" in refusal(
        *unet, "--init", str(tmp_path / "nothing")
    )
    assert "is a JSON text; expected weights" in refusal(*unet, "--init", str(run.root / "run.json"))
    assert "leave one out" in refusal(*unet, "--init", str(run.root), "--encoder-weights", "none")
    other = [
        "--init",
        str(run.root),
        "--set",
        "seed=7",
    ]  # another split of the same
    assert "images that validate and test here, expected none" in refusal(*unet, *other)
    out = run.root
    result = CliRunner().invoke(train, [str(data), "--out", str(out), *unet, "--init", str(out)])
    assert "lies in --out" in str(result.exception)
    initial = InitialWeights(str(run.root / CHECKPOINT), "0" * 64)
    with pytest.raises(InputError, match="is missing or changed since the training was planned"):
        load_initial_weights(run.model(), initial)


def test_weights_of_an_unknown_split_are_warned_of_but_for_phantoms(
    data: Path, recipe: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tumorseg_train.training.train.train", lambda *arguments, **options: None)
    weights, images = tmp_path / "weights.safetensors", tmp_path / "images"
    weights.write_bytes((run.root / CHECKPOINT).read_bytes())
    shutil.copytree(data, images, ignore=shutil.ignore_patterns(NOTE))
    for folder, warned in ((images, True), (data, False)):
        arguments = [str(folder), "--out", str(tmp_path / "out"), *SMALL[:6], "--recipe", str(recipe)]
        result = CliRunner().invoke(train, [*arguments, "--init", str(weights)])
        assert result.exit_code == 0, result.output
        assert ("warning: " in result.output and "an unknown split" in result.output) == warned


def test_without_an_epoch_weights_are_judged_as_they_are(data: Path, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "adopted"
    arguments = [str(data), "--out", str(out), *SMALL[:4], "--size", "64", "--recipe", "quick"]
    arguments += ["--epochs", "0", "--set", "crop=32", "--set", "mirror=true"]
    refused = CliRunner().invoke(train, arguments)
    assert isinstance(refused.exception, InputError)
    assert "--epochs is 0, expected 1 or more without --init" in str(refused.exception)
    result = CliRunner().invoke(train, [*arguments, "--init", str(run.root)])
    assert result.exit_code == 0, result.output
    assert "initial weights as they are" in result.output
    adopted = Run.open(out)
    assert (out / CHECKPOINT).is_file()
    assert adopted.training["steps"] == adopted.training["epochs"] == 0
    assert isinstance(adopted.model(), Mirrored)
    for before, after in zip(run.model().parameters(), adopted.model().parameters(), strict=True):
        assert torch.equal(before, after)
    assert adopted.metrics["test"]["images"] == run.metrics["test"]["images"]
