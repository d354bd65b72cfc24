"""Files of weights are recognised by what they hold; no pickle runs; what is refused is named."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file

from tumorseg_runtime.core.errors import InputError
from tumorseg_train.networks.weights_file import read_weights

STATE = {"a.weight": torch.arange(3.0)}


class Runs:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w", "W.SAFETENSORS", "w.ckpt (1).tmp", "w.h5"])
@pytest.mark.parametrize("form", ["safetensors", "zip", "legacy"])
def test_the_name_of_a_file_says_nothing(name: str, form: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if form == "safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=form == "zip")
    assert torch.equal(read_weights(path)["a.weight"], STATE["a.weight"])


@pytest.mark.parametrize("legacy", [False, True])
def test_numpy_scalars_and_arrays_are_read(legacy: bool, tmp_path: Path) -> None:
    values = {
        "f8": np.float64(0.5),
        "f4": np.float32(0.5),
        "i": np.int64(3),
        "b": np.bool_(True),
        "a": np.eye(2),
    }
    torch.save({"state": STATE, **values}, tmp_path / "w", _use_new_zipfile_serialization=not legacy)
    read = read_weights(tmp_path / "w")
    assert all(np.array_equal(read[name], value) for name, value in values.items())


@pytest.mark.parametrize("legacy", [False, True])
def test_objects_of_a_pickle_are_named_and_not_made(legacy: bool, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    zipped = not legacy
    contents: dict[str, object] = {
        r"argparse\.Namespace, pathlib\.\w+": {"w": STATE, "args": argparse.Namespace(path=tmp_path)},
        r"torch\.nn\.modules\.linear\.Linear": torch.nn.Linear(2, 2),
        r"\w+\.open": {"w": STATE, "x": Runs(trace)},
    }
    for names, content in contents.items():
        torch.save(content, tmp_path / "w", _use_new_zipfile_serialization=zipped)
        with pytest.raises(InputError, match=rf"objects of {names}.*save model\.state_dict\(\)") as caught:
            read_weights(tmp_path / "w")
        assert "weights_only=False" not in str(caught.value)
        assert str(caught.value).isprintable()
    (tmp_path / "w").write_bytes(pickle.dumps({"x": Runs(trace)}))
    with pytest.raises(InputError, match=r"objects of \w+\.open"):
        read_weights(tmp_path / "w")
    assert not trace.exists()


def archive(path: Path, *names: str) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, b"{}")


def text(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


KINDS: dict[str, Callable[[Path], object]] = {
    "empty": text(b""),
    "a TorchScript file": lambda path: archive(path, "n/data.pkl", "n/constants.pkl", "n/code/x.py"),
    "an ONNX file": text(b"\x08\x08"),
    "an ONNX file, a graph": text(b"\x08\x0a\x12\x07pytorch\x1a\x03"),
    "a Keras or HDF5 file": text(b"\x89HDF\r\n\x1a\n" + b"0" * 100),
    "a Keras file": lambda path: archive(path, "metadata.json", "config.json", "model.weights.h5"),
    "a torch.export program": lambda path: archive(path, "m/models/model.json", "m/archive_format"),
    "a TensorFlow Lite file": text(b"\x1c\x00\x00\x00TFL3" + b"\0" * 9),
    "a NumPy array": text(b"\x93NUMPY\x01\x00v\x00"),
    "an archive of NumPy arrays": lambda path: archive(path, "a.npy"),
    "a ZIP archive": lambda path: archive(path, "notes.txt"),
    "a pointer of Git LFS": text(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    "a page of HTML": text(b"\n<!DOCTYPE html><html>log in</html>"),
    "a JSON text": text(b'{"encoder": 1}'),
    "a compressed file": text(b"\x1f\x8b\x08\x00"),
    "an XML file": text(b"<?xml version='1.0'?><net/>"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_other_kinds_are_named(kind: str, tmp_path: Path) -> None:
    KINDS[kind](tmp_path / "w.pth")
    with pytest.raises(InputError, match=rf"w\.pth: is {kind}.*save model\.state_dict\(\)"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.fault
def test_damage_is_told_in_our_own_words(tmp_path: Path) -> None:
    path = tmp_path / "w"
    torch.save(STATE, path)
    whole = path.read_bytes()
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    for content in (
        whole[:-30],
        whole[:200],
        path.read_bytes()[:-8],
        save(STATE)[:-2],
        save(STATE)[:20],
        b"\x80\x02",
    ):
        path.write_bytes(content)
        with pytest.raises(
            InputError, match=rf"cannot be read as weights: .*{len(content)} bytes.*copy the file"
        ):
            read_weights(path)
    torch.save(STATE, path, pickle_protocol=4)
    with pytest.raises(InputError, match=r"pickle of protocol 4, expected torch\.save's own, 2"):
        read_weights(path)
