"""Files of weights, recognised by what they hold and not by their names; of a pickle nothing runs.

Two kinds are read: safetensors, and what `torch.save` writes of plain values (tensors, containers, numbers,
numpy's scalars and arrays). Every other kind is refused by its name: what it is, and what to give instead.
"""

from __future__ import annotations

import contextlib
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from tumorseg_runtime.core.errors import InputError

SAVE = "save model.state_dict() where the network was trained and give that file"
SPLIT_SHA256 = "split_sha256"  # safetensors' metadata: of the split whose train part made the weights
PROTOCOL = 2  # of the pickles that torch.save writes and weights_only reads
# What zipfile and pickletools raise for a file that is no whole pickle.
UNREADABLE = (ValueError, IndexError, KeyError, EOFError, OSError, RuntimeError, zipfile.BadZipFile)
HEAD_BYTES = 4096  # enough for every mark below

# First bytes of files that are no weights for PyTorch: mark, what it is, what to do.
_MARKS: tuple[tuple[bytes, str], ...] = (
    (rb"\x89HDF\r\n\x1a\n", "a Keras or HDF5 file, weights of another framework"),
    (rb"\x08[\x01-\x1f](?:[\x12\x1a\x22\x2a\x32\x3a\x42]|$)", "an ONNX file, a graph, no network of PyTorch"),
    (rb"....TFL3", "a TensorFlow Lite file"),
    (rb"GGUF", "a GGUF file"),
    (rb"\x93NUMPY", "a NumPy array"),
    (rb"(?:ftrt|ptrt|trtf)", "a TensorRT engine"),
    (rb"7767517\s", "an ncnn network"),
    (rb"version https://git-lfs", "a pointer of Git LFS: `git lfs pull` fetches the file itself"),
    (rb"(?i)\s*(?:<!doctype html|<html)", "a page of HTML, as a download that asks for a login leaves"),
    (rb"\s*<\?xml|\s*<net ", "an XML file, such as a network of OpenVINO"),
    (rb"\s*[{\[]\s*[\"\]}\[{\d]", "a JSON text"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ\x00|\x28\xb5\x2f\xfd", "a compressed file: unpack it"),
    (rb"7z\xbc\xaf\x27\x1c|Rar!", "an archive: unpack it"),
    (rb"\x89PNG|\xff\xd8\xff|GIF8|%PDF|\x7fELF", "an image, a document or a program"),
)  # fmt: skip
_TAR = (257, b"ustar")
# Names inside a ZIP archive that tell its kind; the first that fits.
_ARCHIVES: tuple[tuple[str, str], ...] = (
    (r"(.*/)?constants\.pkl", "a TorchScript file, a program and not a state dict"),
    (r"(.*/)?(models/.*\.json|serialized_exported_program\.json|archive_format)", "a torch.export program"),
    (r"model\.weights\.h5|metadata\.json", "a Keras file, weights of another framework"),
    (r".*\.npy", "an archive of NumPy arrays"),
)  # fmt: skip
# Modules whose names in a pickle stand for tensors and plain values; torch itself decides what is made.
PLAIN_MODULES = (
    "torch", "torch._utils", "torch._tensor", "torch.nn.parameter", "torch.storage", "torch.serialization",
    "torch.torch_version", "collections", "_codecs", "numpy", "numpy.dtypes",
    "numpy.core.multiarray", "numpy._core.multiarray",
)  # fmt: skip
PLAIN_NAMES = tuple(
    f"{module}.{kind}" for module in ("builtins", "__builtin__") for kind in ("set", "complex", "bytearray")
)


def read_weights(path: Path) -> Any:
    """What a file of safetensors or a pickle of plain values holds, on the CPU; no code of it runs.

    Raises InputError for what is missing, damaged, or of another kind, and for a pickle that needs classes:
    they are named.
    """
    if not path.is_file():
        raise InputError(f"{path}: is not a file, expected weights (.safetensors, .pth, .pt or .bin)")
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if _is_safetensors(head):
        return _read_safetensors(path)  # numbers as they lie there
    if (kind := _kind_of(path, head)) is not None:
        raise InputError(f"{path}: is {kind}; expected weights of PyTorch: {SAVE}")
    content = _read_pickle(path)
    check_held(path, content)
    return content


def check_held(path: Path, content: Any, name: str = "") -> None:
    """Raise InputError unless the file holds every number of its tensors, however deep they lie.

    One number that is expanded to a shape (stride 0) takes some bytes in a pickle, and terabytes where
    the shape is made real.
    """
    if isinstance(content, Mapping):
        for key, value in content.items():
            check_held(path, value, f"{name}.{key}" if name else str(key))
    elif isinstance(content, list | tuple):
        for number, value in enumerate(content):
            check_held(path, value, f"{name}.{number}" if name else str(number))
    elif isinstance(content, torch.Tensor):
        plain = content.layout == torch.strided and not content.is_quantized and content.device.type == "cpu"
        if not plain or content.numel() * content.element_size() > content.untyped_storage().nbytes():
            kind = "expanded" if plain else "sparse, quantized or without values"
            raise InputError(
                f"{path}: {name} of shape {tuple(content.shape)} is {kind}, expected a plain tensor whose "
                "numbers are in the file: save model.state_dict() and give that file"
            )


def _is_safetensors(head: bytes) -> bool:
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32


def _kind_of(path: Path, head: bytes) -> str | None:
    """What a file is that holds no weights for PyTorch, in words; None where it may hold some."""
    if not head:
        return "empty"
    for mark, kind in _MARKS:
        if re.match(mark, head, re.DOTALL):
            return kind
    at, mark = _TAR
    if head[at : at + len(mark)] == mark:
        return "a tar archive: unpack it"
    if head.startswith(b"PK"):
        return _kind_of_archive(path)
    return None


def _kind_of_archive(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return None  # damaged: the reader says it
    for pattern, kind in _ARCHIVES:
        if any(re.fullmatch(pattern, name) for name in names):
            return kind
    if not any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return f"a ZIP archive (of {', '.join(names[:3]) or 'nothing'}): unpack it"
    return None


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(
            f"{path}: cannot be read as weights: is safetensors, damaged or cut short at "
            f"{path.stat().st_size} bytes: copy the file again"
        ) from error


def _read_pickle(path: Path) -> Any:
    try:
        # Of a path torch would believe the ending .safetensors.
        with torch.serialization.safe_globals(_numpy_makers()), path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and pickle raise many kinds: what the file holds says why
        raise InputError(f"{path}: cannot be read as weights: {_why_not(path)}") from error


def _why_not(path: Path) -> str:
    """What a pickle asks for that weights_only does not give, or else that it is damaged; and what to do."""
    names = pickled_names(path)
    # The outermost object comes first: of a whole network this is its class.
    plain = {*PLAIN_NAMES, *(name for name in names if name.rpartition(".")[0] in PLAIN_MODULES)}
    if blocked := [name for name in names if name not in plain]:
        more = f" and {len(blocked) - 3} more" if len(blocked) > 3 else ""
        return (
            f"is a pickle with objects of {', '.join(blocked[:3])}{more}, which may run code and were not "
            f"made; expected tensors and plain values: {SAVE} (torch.save(model.state_dict(), 'weights.pth'))"
        )
    protocol = _protocol(path)
    if protocol is not None and protocol != PROTOCOL:
        return f"is a pickle of protocol {protocol}, expected torch.save's own, {PROTOCOL}: {SAVE}"
    return (
        f"neither safetensors nor a whole file of torch.save (damaged, cut short at {path.stat().st_size} "
        f"bytes, or of another kind): copy the file again, or {SAVE}"
    )


def pickled_names(path: Path) -> list[str]:
    """Classes and functions, as module.name, that a pickle asks for, in the order of the file, as far as it
    can be read. Its instructions are read, none is carried out."""
    names: dict[str, None] = {}
    with contextlib.suppress(*UNREADABLE), _pickles(path) as (file, count):
        for _ in range(count):
            for name in _names_in(file):
                names[name if name.isprintable() else ascii(name)] = None
    return list(names)


def _protocol(path: Path) -> int | None:
    """Protocol that the file's pickle names; None where it is none, or one of protocol 0 or 1."""
    with contextlib.suppress(*UNREADABLE), _pickles(path) as (file, _):
        first = file.read(2)
        return first[1] if len(first) == 2 and first[:1] == pickle.PROTO else None
    return None


@contextlib.contextmanager
def _pickles(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """The stream of pickles in a file, and how many follow one another there."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            name = next((name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"), None)
            if name is None:
                raise ValueError("no data.pkl")
            with archive.open(name) as file:
                yield file, 1  # type: ignore[misc]
    else:
        with path.open("rb") as file:
            yield file, 5  # before 1.6: a magic number, the protocol, the machine, the object, its keys


def _names_in(file: BinaryIO) -> Iterator[str]:
    texts: list[str] = []  # last texts on the stack, as STACK_GLOBAL takes them
    memo: dict[int, str] = {}
    for code, value, _ in pickletools.genops(file):
        if code.name in ("GLOBAL", "INST"):
            yield ".".join(str(value).split(" ", 1))
        elif code.name == "STACK_GLOBAL":
            yield ".".join(texts[-2:])
        elif code.name.endswith("GET"):
            texts.append(memo.get(int(value or 0), "?"))
        elif code.name == "MEMOIZE":
            memo[len(memo)] = texts[-1] if texts else "?"
        elif code.name.endswith("PUT"):
            memo[int(value or 0)] = texts[-1] if texts else "?"
        elif isinstance(value, str):
            texts.append(value)
        elif code.name.startswith("EXT"):
            yield f"extension {value}"


def _numpy_makers() -> list[Any]:
    """numpy's makers of scalars and arrays, under the names that its versions gave them."""
    from numpy._core import multiarray

    makers: list[Any] = [np.dtype, np.ndarray]
    makers += [kind for name in dir(np.dtypes) if isinstance(kind := getattr(np.dtypes, name), type)]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        makers += [
            (multiarray.scalar, f"{module}.scalar"),
            (multiarray._reconstruct, f"{module}._reconstruct"),
        ]
    return makers


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Tensors by name from a file of weights; raises InputError for one that holds anything else."""
    state = read_weights(path)
    if not is_state_dict(state):
        raise InputError(f"{path}: holds no plain state_dict: save model.state_dict() and give that file")
    return dict(state)


def is_state_dict(value: object) -> bool:
    """True for tensors by name."""
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in value.items()
    )
