"""What `make train` runs: the shipped network trained on for phantoms alone."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_train.demo.demo import SHIPPED

ROOT = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not shutil.which("make"), reason="make is not installed"),
]


def train_command(*variables: str) -> list[str]:
    """The words of the command that `make train` would run."""
    command = ["make", "--no-print-directory", "-n", "train", *variables]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.replace("\\\n", " ").splitlines()
    (line,) = [line for line in lines if "tumorseg train " in line]
    return line.split()


@pytest.mark.parametrize("drawn", [False, True])
def test_phantoms_take_the_network_that_ships(tmp_path: Path, drawn: bool) -> None:
    data = tmp_path / "data"
    if drawn:
        data.mkdir()
        (data / "PHANTOMS.txt").touch()
    words = train_command(f"DATA={data}")
    model = Bundle.read_index(SHIPPED).model
    for option, value in (("--arch", model["architecture"]), ("--encoder", model["encoder"])):
        assert words[words.index(option) + 1] == value
    assert words[words.index("--init") + 1] == "build/shipped.safetensors"


@pytest.mark.parametrize("asked", ["ARCH=unet", "ENCODER=resnet18", "RECIPE=full", "ENCODER_WEIGHTS=none"])
def test_a_network_or_recipe_that_is_asked_for_starts_anew(tmp_path: Path, asked: str) -> None:
    words = train_command(f"DATA={tmp_path / 'none'}", asked)
    assert "--init" not in words
    assert words[words.index("--size") + 1] == "512"


def test_images_that_are_no_phantoms_start_anew(tmp_path: Path) -> None:
    words = train_command(f"DATA={tmp_path}")
    assert "--init" not in words
    assert words[words.index("--arch") + 1] == "unetplusplus"
    assert words[words.index("--recipe") + 1] == "auto"
