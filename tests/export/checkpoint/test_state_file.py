"""Which tensors of a file are the network's, what lies beside it, and what of it is used, left or refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tumorseg_export.checkpoint.normalisation import choose_normalisation
from tumorseg_export.checkpoint.state_file import read_network
from tumorseg_runtime.core.errors import InputError

State = dict[str, torch.Tensor]
# Of a network only the names of its parts matter here.
NETWORK: State = {
    "encoder.conv1.weight": torch.full((4, 3, 3, 3), 1.0),
    "decoder.blocks.0.weight": torch.full((4, 4), 2.0),
    "segmentation_head.0.weight": torch.full((1, 4, 3, 3), 3.0),
}
OTHER: State = {key: -value for key, value in NETWORK.items()}


def under(prefix: str, state: State = NETWORK) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


def read(content: object, folder: Path, entry: str | None = None) -> tuple[State, dict, list[str]]:
    said: list[str] = []
    torch.save(content, folder / "w.bin")
    stored = read_network(folder / "w.bin", said.append, entry)
    return stored.state, stored.beside, said


def same(got: State, expected: State = NETWORK) -> bool:
    return got.keys() == expected.keys() and all(torch.equal(got[key], expected[key]) for key in got)


FORMS: dict[str, object] = {
    "DataParallel of a compiled module": under("module._orig_mod.model."),
    "compiled encoder": {key.replace("encoder.", "encoder._orig_mod."): v for key, v in NETWORK.items()},
    "wrapped decoder": {
        key.replace("decoder.blocks", "decoder.module.blocks"): v for key, v in NETWORK.items()
    },
    "nested twice": {"state": {"model": NETWORK}, "epoch": 1},
    "list": [NETWORK, 0.5],
    "parts apart": {
        part: {key.partition(".")[2]: value for key, value in NETWORK.items() if key.startswith(part)}
        for part in ("encoder", "decoder", "segmentation_head")
    },
    "numpy's arrays": {key: value.numpy() for key, value in NETWORK.items()},
    "parameters": {key: torch.nn.Parameter(value) for key, value in NETWORK.items()},
    "numpy's scalars": {"model": NETWORK, "best": np.float64(0.8), "all": [np.float32(1)], "n": np.int64(3)},
    "optimizer by name": {"model": NETWORK, "optimizer": {"state": under("", OTHER)}},
}


@pytest.mark.parametrize("form", FORMS)
def test_network_is_found_whatever_it_is_wrapped_in(form: str, tmp_path: Path) -> None:
    state, beside, said = read(FORMS[form], tmp_path)
    assert same(state)
    assert not beside
    assert "used: 3 tensors of the network" in said


KNOWN = {
    "criterion.pos_weight": "loss",
    "loss_fn.weight": "loss",
    "n_averaged": "counters",
    "val_metrics.confmat": "metrics",
    "valid_iou.tp": "metrics",
    "temperature": None,
    "classification_head.3.weight": "classification head, a second output",
}


@pytest.mark.parametrize("key", KNOWN)
def test_companions_are_left_and_said_and_unknown_tensors_refused(key: str, tmp_path: Path) -> None:
    content = {"state_dict": {**under("model."), f"model.{key}": torch.ones(2)}}
    kind = KNOWN[key]
    if kind is None:
        with pytest.raises(
            InputError, match=f"has state_dict.model.{key} beside the network.*--entry state_dict"
        ):
            read(content, tmp_path)
        kind = "unknown"
    state, _, said = read(content, tmp_path, "state_dict.model")
    assert same(state)
    assert f"left: state_dict.model.{key} ({kind})" in said


def test_unknown_tensors_of_other_entries_are_said(tmp_path: Path) -> None:
    _, _, said = read(
        {"model": NETWORK, "prototypes": torch.ones(9), "optimizer_states": [NETWORK]}, tmp_path
    )
    assert "left: prototypes (unknown); " in next(line for line in said if line.startswith("left")) + "; "
    assert any("and 0 more" not in line and "(training state)" in line for line in said)


TWO: dict[str, Callable[[], object]] = {
    "entries": lambda: {"state_dict": NETWORK, "ema": OTHER},
    "prefixes": lambda: {"state_dict": {**under("net."), **under("ema.module.", OTHER)}},
    "nested": lambda: {"a": {"model": NETWORK}, "b": {"ema": {"model": OTHER}}},
    "list": lambda: [NETWORK, OTHER],
    "beside one another": lambda: {**NETWORK, **under("ema.", OTHER)},
}
NAMES = {
    "entries": ("state_dict", "ema"),
    "prefixes": ("state_dict.net", "state_dict.ema.module"),
    "nested": ("a.model", "b.ema.model"),
    "list": ("0", "1"),
    "beside one another": (".", "ema"),
}


@pytest.mark.parametrize("form", TWO)
def test_of_several_networks_one_is_chosen_and_all_are_listed(form: str, tmp_path: Path) -> None:
    first, second = NAMES[form]
    listed = re.escape(f"{first} (3 tensors), {second} (3 tensors)")
    with pytest.raises(InputError, match=f"holds 2 networks: {listed}; choose one with --entry"):
        read(TWO[form](), tmp_path)
    assert same(read(TWO[form](), tmp_path, first)[0])
    state, _, said = read(TWO[form](), tmp_path, second)
    assert same(state, OTHER)
    assert any(f"(network {first})" in line for line in said)
    with pytest.raises(InputError, match=f"--entry is 'none', which names 0 networks; there are: {listed}"):
        read(TWO[form](), tmp_path, "none")


def test_entry_may_leave_out_what_wraps_a_network(tmp_path: Path) -> None:
    assert same(read({"a": under("module."), "b": OTHER}, tmp_path, "a")[0])
    both = {**NETWORK, **{key.replace("encoder.", "encoder.module."): v for key, v in NETWORK.items()}}
    with pytest.raises(InputError, match="1 tensors twice, with and without a wrapper"):
        read(both, tmp_path)


def test_hostile_names_do_not_reach_the_terminal(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read({**NETWORK, "\x1b[31mred": torch.ones(1)}, tmp_path)
    assert "\x1b" not in str(caught.value)


MEAN, STD = (0.5, 0.4, 0.3), (0.3, 0.2, 0.1)
BESIDE: dict[str, object] = {
    "buffers": {**under("model."), "mean": torch.tensor(MEAN).view(1, 3, 1, 1), "std": torch.tensor(STD)},
    "of 0..255": {**NETWORK, "pixel_mean": 255 * torch.tensor(MEAN), "pixel_std": 255 * torch.tensor(STD)},
    "values": {"model": NETWORK, "normalize": {"mean": list(MEAN), "std": STD}},
    "hyperparameters": {"state_dict": NETWORK, "hyper_parameters": {"image_mean": MEAN, "image_std": STD}},
}


def chosen(content: object, folder: Path, channels: int = 3, **flags: tuple[float, ...]) -> tuple:
    _, beside, _ = read(content, folder)
    mean_std = (flags.get("mean"), flags.get("std"))
    return choose_normalisation(Path("w"), mean_std, beside, (), "resnet18", channels, lambda _: None)


@pytest.mark.parametrize("form", BESIDE)
def test_mean_and_std_beside_the_weights_are_used(form: str, tmp_path: Path) -> None:
    mean, std = chosen(BESIDE[form], tmp_path)
    assert mean == pytest.approx(MEAN)
    assert std == pytest.approx(STD)
    with pytest.raises(InputError, match="contradict each other"):
        chosen(BESIDE[form], tmp_path, mean=MEAN, std=(1.0,) * 3)
    with pytest.raises(InputError, match=r"takes 1 channel\(s\)"):
        chosen(BESIDE[form], tmp_path, channels=1)


def test_half_a_normalisation_is_refused_and_one_number_is_for_all_channels(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has a mean or a std alone \(mean\), expected both: give --mean"):
        chosen({**NETWORK, "mean": torch.tensor(MEAN)}, tmp_path)
    assert chosen({**NETWORK, "mean": torch.tensor(MEAN)}, tmp_path, mean=MEAN, std=STD) == (MEAN, STD)
    assert chosen({"m": NETWORK, "mean": 0.5, "std": 0.25}, tmp_path, channels=1) == ((0.5,), (0.25,))
    # The mean of a score is no mean of images.
    assert chosen({"m": NETWORK, "metrics": {"mean": 0.8}, "dice_mean": 0.7}, tmp_path)[0][0] == 0.485
