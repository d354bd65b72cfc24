"""What a mutant is: a whole device with one bug in it, as the gate would meet it.

A bug in the code of a device is put into the runtime itself, one function of which is another one while the
gate looks. A bug of an exporter is a changed graph, sealed into a bundle as that exporter would have done it.
Nothing of the gate is changed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest import mock

import onnx

from tumorseg_benchmarks.mutants.testbed import UNET, BedNetwork
from tumorseg_runtime.bundle.bundle import (
    GOLDEN_FOLDER,
    INDEX,
    INDEX_HASH,
    Artefact,
    Bundle,
    FileRecord,
    sha256_of,
)
from tumorseg_runtime.core.files import write_bytes, write_text


@dataclasses.dataclass(frozen=True)
class Device:
    """What serves: a bundle's artefact under a backend of ONNX Runtime.

    file_changed: whether the artefact is another file than the exporter made; who looks at nothing but the
        file has nothing to see where it is not.
    folder: the device folder, where the bug lies there.
    """

    bundle: Bundle
    precision: str = "fp32"
    file_changed: bool = True
    backend: str = "onnxruntime"
    format: str = "onnx"
    folder: Path | None = None


Apply = Callable[[BedNetwork, Path], AbstractContextManager[Device]]


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A bug. name: what is wrong, in words.

    apply(network, folder): the device with this bug, for as long as the context is open; `folder` is empty.
    network: which of the test bed's it is made of. late: written after the budgets were frozen.
    beyond: why no finite set of images on a device can show it, though it is a bug; it must fall to
    `parity --run` all the same.
    proof: why no input can tell it from the right one; empty for a bug that must be killed.
    """

    name: str
    kind: str
    apply: Apply
    network: str = UNET
    late: bool = False
    proof: str = ""
    beyond: str = ""


def patched(*patches: tuple[str, Any]) -> Apply:
    """A bug in code: each target, 'module.name', is another object."""

    @contextlib.contextmanager
    def apply(network: BedNetwork, folder: Path) -> Iterator[Device]:
        with contextlib.ExitStack() as stack:
            for target, other in patches:
                stack.enter_context(mock.patch(target, other))
            yield Device(network.bundle, file_changed=False)

    return apply


Edit = Callable[[onnx.ModelProto], onnx.ModelProto | None]


def edited(edit: Edit, precision: str = "fp32") -> Apply:
    """A bug in a graph: `edit` changes the exporter's own ONNX file in place, or gives another graph."""

    @contextlib.contextmanager
    def apply(network: BedNetwork, folder: Path) -> Iterator[Device]:
        artefact = network.bundle.artefact("onnx", precision)
        model = onnx.load(network.bundle.root / artefact.file)
        other = edit(model)
        yield Device(resealed(network.bundle, artefact, model if other is None else other, folder), precision)

    return apply


Graph = Callable[[BedNetwork], onnx.ModelProto]


def exported(graph: Graph, precision: str = "fp32") -> Apply:
    """A bug before or in the export: another graph altogether."""

    @contextlib.contextmanager
    def apply(network: BedNetwork, folder: Path) -> Iterator[Device]:
        artefact = network.bundle.artefact("onnx", precision)
        yield Device(resealed(network.bundle, artefact, graph(network), folder), precision)

    return apply


def resealed(bundle: Bundle, artefact: Artefact, model: onnx.ModelProto, folder: Path) -> Bundle:
    """A bundle of this one artefact with another graph, sealed as an exporter with the bug would."""
    root = folder / "bundle"
    shutil.copytree(bundle.root / GOLDEN_FOLDER, root / GOLDEN_FOLDER)
    write_bytes(root / artefact.file, model.SerializeToString(), durable=False)
    alone = dataclasses.replace(artefact, parity=())
    return seal(dataclasses.replace(bundle, root=root, artefacts=(alone,)))


def seal(bundle: Bundle) -> Bundle:
    """The bundle with the hashes of what lies in its folder, and its index written."""
    files = {
        path.relative_to(bundle.root).as_posix(): FileRecord(sha256_of(path), path.stat().st_size)
        for path in sorted(bundle.root.rglob("*"))
        if path.is_file() and path.name not in (INDEX, INDEX_HASH)
    }
    sealed = bundle.draft(files=files)
    write_text(bundle.root / INDEX, sealed.to_index(), durable=False)
    return sealed
