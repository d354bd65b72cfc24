"""Whatever is wrong in a file from outside ends in one of our errors, in one printable line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fuzz.readers import readers
from fuzz.run import fuzz
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BundleError, InputError

SHARED = os.environ.get("TUMORSEG_SHARED") or Path(__file__).parents[3] / "shared"
CASES = Path(SHARED) / "cases/bundles/raw_exceptions"
INPUTS = 12  # for each reader; python -m fuzz.run has as many as one likes


@pytest.mark.slow
@pytest.mark.fault
def test_no_reader_ends_in_a_raw_exception(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    faults = {}
    for reader in readers(tmp_path):
        outcome = fuzz(reader, INPUTS, seed=1)
        assert outcome.accepted + outcome.refused + len(outcome.faults) >= INPUTS
        if outcome.faults:
            faults[reader.name] = outcome.faults[0][1]
    assert not faults


def test_the_search_finds_a_raw_exception(tmp_path: Path) -> None:
    from fuzz.mutate import changed_json
    from fuzz.reader import Reader

    (tmp_path / "x.json").write_text('{"a": {"b": 1}}')

    def careless() -> None:
        import json

        json.loads((tmp_path / "x.json").read_text())["a"]["b"] + 1

    assert fuzz(Reader("careless", tmp_path / "x.json", changed_json, careless), 40, 0).faults


def test_sizes_that_no_memory_holds_are_refused() -> None:
    for changes in ({"height": 320_000_000}, {"width": 8224}):
        with pytest.raises(InputError, match="expected at most 8192"):
            Contract(**changes)
    with pytest.raises(InputError, match="at most 256"):
        Contract(classes=tuple(f"c{n}" for n in range(257)))


@pytest.mark.parametrize("name", ["../x.png", "/etc/passwd", "a/../../x", "\n/../../x", "..", "a\\b"])
def test_a_split_stays_in_its_data(tmp_path: Path, name: str) -> None:
    pytest.importorskip("torch")
    from tumorseg_train.data.split import Item, Manifest

    item = Item(name, (), "brain", "tumour", "train", 8, 8, 0, {name: "0" * 64})
    Manifest(tmp_path, 0, (item,)).write(tmp_path / "split.json")
    with pytest.raises(BundleError, match="a path inside its folder"):
        Manifest.read(tmp_path / "split.json", tmp_path)


@pytest.mark.parametrize("kind", ["expanded", "meta", "sparse"])
def test_weights_that_the_file_does_not_hold(tmp_path: Path, kind: str) -> None:
    torch = pytest.importorskip("torch")
    from tumorseg_train.networks.weights_file import read_state_dict

    make: dict[str, Callable[[], Any]] = {
        "expanded": lambda: torch.zeros(1).expand(10**13),
        "meta": lambda: torch.empty(10**13, device="meta"),
        "sparse": lambda: torch.sparse_coo_tensor([[0]], [1.0], (10**13,), check_invariants=True),
    }
    torch.save({"decoder.x": make[kind]()}, tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"x\.pth"):
        read_state_dict(tmp_path / "x.pth")


@pytest.mark.skipif(not CASES.is_dir(), reason="needs ../shared/cases")
def test_the_inputs_that_once_ended_in_raw_exceptions(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tumorseg_runtime.bundle.bundle import Bundle
    from tumorseg_runtime.core.errors import TumorsegError
    from tumorseg_train.data.split import Manifest
    from tumorseg_train.networks.run import Run

    read: dict[str, Callable[[], object]] = {
        "bundle.json": lambda: Bundle.open(tmp_path),
        "run.json": lambda: Run.open(tmp_path),
        "split.json": lambda: Manifest.read(tmp_path / "split.json", tmp_path),
    }
    for case in sorted(CASES.iterdir()):
        name = case.name.partition("-")[0]
        (tmp_path / name).write_bytes(case.read_bytes())
        with pytest.raises(TumorsegError) as caught:
            read[name]()
        assert "\n" not in str(caught.value)
