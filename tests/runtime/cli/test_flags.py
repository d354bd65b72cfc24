"""Flags that do nothing are refused, faults name the flag that mends; neither costs an import of torch."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tumorseg_runtime.cli.main import cli
from tumorseg_runtime.core.errors import BundleError, InputError, TumorsegError

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("bench {here} --third-party", "--third-party was given without --run"),
        ("bench {here} --seconds 5", "--seconds was given without --rate"),
        ("bench {here} --backend mnn", "--backend was given without --rate"),
        ("bench {here} --precision fp16", "--precision was given without --rate"),
        (
            "bench {here} --rate 5 --no-cold --rounds 9",
            "--rate times no latencies, got also --rounds, --cold",
        ),
        ("parity {here} --limit 5", "--limit was given without --run"),
        ("parity {here} --split val", "--split was given without --run"),
        ("parity {here} --thinnest 3", "--thinnest was given without --run"),
        ("parity {here} --layer-diff", "--layer-diff was given without --run"),
        ("data prepare {here} --fold 1", "--fold was given without --folds"),
        ("export {file} --out x --batch 1,2,4", "--batch: only for target tensorrt-rtx"),
        ("verify {here} --precision fp64", "has no bundle.json"),
    ],
)
def test_a_flag_that_would_do_nothing_is_refused(command: str, message: str) -> None:
    result = CliRunner().invoke(cli, command.format(here=HERE, file=__file__).split())
    assert isinstance(result.exception, TumorsegError), result.output
    assert message in str(result.exception)


def test_an_unknown_precision_is_bad_usage(small_bundle: Path) -> None:
    result = CliRunner().invoke(cli, ["verify", str(small_bundle), "--precision", "fp64"])
    assert isinstance(result.exception, InputError)
    assert str(result.exception) == "precision is 'fp64', expected one of fp32, fp16, int8, bf16"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("calibrate {here}", "has no run.json, expected a run: check the path, or wait where it is"),
        ("bench {here} --run {here}", "has no run.json, expected a run"),
        ("compare {here}", "has no run.json, expected a run or an evaluation.json"),
        ("evaluate {here}", "has no run.json and no bundle.json, expected a run or a bundle"),
        ("export {here} --out x", "has no run.json and no config.json, expected a run or a checkpoint"),
        ("deploy {here} --out x", "has no run.json and no config.json"),
        ("train {here} --out x --init {here}", "has no run.json and no plan.json"),
        ("train --resume {here}", "has no plan.json, expected the folder of a training"),
        ("unfold {here} --out x.safetensors", "has no bundle.json"),
        (
            "train {images} --out x --encoder-weights gone",
            "gone: does not exist, expected imagenet, none, or",
        ),
        (
            "train {images} --out x --set corp=64",
            "--set is 'corp=64', expected FIELD=VALUE with a field such as crop",
        ),
        ("train {images} --out x --set crop=65", "--set crop is 65, expected a multiple of 32: correct it"),
        (
            "train {images} --out x --epochs -3",
            "--epochs is -3, expected greater than or equal to 0: correct it",
        ),
        ("train {images} --resume {plan} --set crop=64", "got also DATA, --set: leave them out"),
    ],
)
def test_what_can_be_judged_alone_is_judged_before_torch(
    command: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("torch", "onnx"):
        monkeypatch.setitem(sys.modules, name, None)  # its import would fail
    images, plan = tmp_path / "images", tmp_path / "plan"
    for folder in (images, plan):
        folder.mkdir()
    (plan / "plan.json").write_text("{}")
    given = command.format(here=HERE, images=images, plan=plan).split()
    result = CliRunner().invoke(cli, given)
    assert isinstance(result.exception, TumorsegError), result.output
    assert message in str(result.exception)
    assert "quick.toml" not in str(result.exception)


@pytest.mark.parametrize("group", [[], ["data"], ["bundle"]])
def test_help_of_groups_has_whole_descriptions_and_an_example(group: list[str]) -> None:
    text = CliRunner().invoke(cli, [*group, "--help"]).output.rstrip()
    assert "..." not in text.partition("Commands:")[2]
    assert text.splitlines()[-2].strip() == "Example:"
    assert text.splitlines()[-1].strip().startswith(" ".join(["tumorseg", *group]))


def test_arguments_are_no_options_in_help() -> None:
    text = CliRunner().invoke(cli, ["predict", "--help"]).output
    assert "Options:\n  --out PATH" in text


def test_a_command_of_a_group_is_named_with_its_group() -> None:
    result = CliRunner().invoke(cli, ["audit", "data"])
    assert "No such command 'audit'. Did you mean 'data audit'?" in result.stderr


def test_install_names_the_bundle_and_not_its_copy(small_bundle: Path, tmp_path: Path) -> None:
    given = ["install", str(tmp_path / "store"), str(small_bundle), "--precision", "fp16"]
    result = CliRunner().invoke(cli, given)
    assert isinstance(result.exception, BundleError)
    assert str(result.exception) == (
        f"{small_bundle}: has no fp16 onnx artefact, it has onnx fp32: take it by --precision fp32, or "
        "export that one"
    )
