"""Bugs of what lies on the device: caches and files that belong to something else."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import onnx

from tumorseg_benchmarks.mutants.mutant import Device, Mutant, resealed, seal
from tumorseg_benchmarks.mutants.testbed import BedNetwork
from tumorseg_benchmarks.variants.pytorch import PyTorchSession
from tumorseg_export.onnx.export import to_onnx
from tumorseg_export.references.golden_images import write_golden
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.files import write_bytes, write_text
from tumorseg_runtime.device.cache import PASSED, RANKING, Entry, device_facts, write_ranking
from tumorseg_runtime.device.engines import EngineKey, Profile, write_engine


def engine_key(bundle: Bundle, digest: str) -> EngineKey:
    """Key of an engine that a device built of the bundle with this digest."""
    graph = bundle.files[bundle.artefact("onnx", "fp32").file].sha256
    return EngineKey(graph, digest, "fp32", "tensorrt", "11.4.0", (87,), "Orin", Profile(1, 1, 4), None)


def other_digest(bundle: Bundle) -> str:
    """Digest of another bundle of the same structure."""
    return bundle.digest()[::-1]


@contextlib.contextmanager
def stale_engine(network: BedNetwork, folder: Path) -> Iterator[Device]:
    """The bundle was replaced, and the engine of the one before is still in the cache."""
    key = engine_key(network.bundle, other_digest(network.bundle))
    write_engine(folder / key.name(), b"engine of the old weights", key)
    yield Device(network.bundle, file_changed=False, folder=folder)


@contextlib.contextmanager
def foreign_engine(network: BedNetwork, folder: Path) -> Iterator[Device]:
    """Two networks of one structure share a cache: under the right key lies the other one's engine."""
    key = engine_key(network.bundle, network.bundle.digest())
    path = folder / key.name()
    write_engine(path, b"engine of this bundle", key)
    write_bytes(path, b"engine of that bundle", durable=False)  # as long, and other bytes
    yield Device(network.bundle, file_changed=False, folder=folder)


@contextlib.contextmanager
def stale_ranking(network: BedNetwork, folder: Path) -> Iterator[Device]:
    """The ranking that chooses the backend was measured with the bundle before."""
    entry = Entry("onnxruntime", "cpu", "fp32", 1, {}, PASSED, 0.01)
    path = folder / "ranking.json"
    write_ranking(folder, network.bundle, (entry,))
    ranking = path.read_text(encoding="utf-8")
    write_text(path, ranking.replace(network.bundle.digest(), other_digest(network.bundle)), durable=False)
    yield Device(network.bundle, file_changed=False, folder=folder)


@contextlib.contextmanager
def foreign_ranking(network: BedNetwork, folder: Path) -> Iterator[Device]:
    """The device folder was copied from a device with another processor."""
    entry = Entry("onnxruntime", "cpu", "fp32", 1, {}, PASSED, 0.01)
    path = folder / RANKING
    write_ranking(folder, network.bundle, (entry,))
    cpu = json.dumps(device_facts()["cpu"])
    ranking = path.read_text(encoding="utf-8")
    write_text(path, ranking.replace(cpu, json.dumps("another processor")), durable=False)
    yield Device(network.bundle, file_changed=False, folder=folder)


@contextlib.contextmanager
def torn_ranking(network: BedNetwork, folder: Path) -> Iterator[Device]:
    """The ranking was cut in the middle."""
    path = folder / RANKING
    write_ranking(folder, network.bundle, (Entry("onnxruntime", "cpu", "fp32", 1, {}, PASSED, 0.01),))
    write_bytes(path, path.read_bytes()[:-40], durable=False)
    yield Device(network.bundle, file_changed=False, folder=folder)


@contextlib.contextmanager
def torn_engine(network: BedNetwork, folder: Path) -> Iterator[Device]:
    """An engine was cut in the middle."""
    key = engine_key(network.bundle, network.bundle.digest())
    path = folder / key.name()
    write_engine(path, b"engine of this bundle", key)
    write_bytes(path, b"engine of", durable=False)
    yield Device(network.bundle, file_changed=False, folder=folder)


@contextlib.contextmanager
def epoch_sealed_anew(network: BedNetwork, folder: Path) -> Iterator[Device]:
    """The weights of another epoch, with golden images that the same weights answered."""
    bundle, artefact = network.bundle, network.bundle.artefact("onnx", "fp32")
    session = PyTorchSession(network.earlier, "cpu")
    golden = [
        dataclasses.replace(item, logits=session.infer(item.tensor[None])[0]) for item in network.golden
    ]
    device = resealed(bundle, artefact, to_onnx(network.earlier, bundle.contract), folder)
    write_golden(golden, device.root)
    yield Device(seal(device))


@contextlib.contextmanager
def half_updated(network: BedNetwork, folder: Path) -> Iterator[Device]:
    """An update that stopped half-way: the index is the new one, the graph that of another epoch."""
    root = folder / "bundle"
    shutil.copytree(network.bundle.root, root, copy_function=os.link)
    file = root / network.bundle.artefact("onnx", "fp32").file
    write_bytes(file, to_onnx(network.earlier, network.bundle.contract).SerializeToString(), durable=False)
    yield Device(Bundle.read_index(root))


@contextlib.contextmanager
def other_threshold(network: BedNetwork, folder: Path) -> Iterator[Device]:
    """The bundle carries the threshold of another run."""
    artefact = network.bundle.artefact("onnx", "fp32")
    model = onnx.load(network.bundle.root / artefact.file)
    contract = dataclasses.replace(network.bundle.contract, threshold=0.4)
    other = dataclasses.replace(network.bundle, contract=contract)
    yield Device(resealed(other, artefact, model, folder), file_changed=False)


MUTANTS = (
    Mutant("another network's engine in the cache", "files", foreign_engine),
    Mutant("stale ranking of the device", "files", stale_ranking),
    Mutant("ranking of another device", "files", foreign_ranking),
    Mutant("ranking cut in the middle", "files", torn_ranking),
    Mutant("engine cut in the middle", "files", torn_engine),
    Mutant(
        "weights of another epoch, sealed with golden images of their own",
        "files",
        epoch_sealed_anew,
        beyond="The bundle agrees with itself in every bit: what it is not, only its run can say.",
    ),
    Mutant("update that stopped half-way", "files", half_updated),
    Mutant(
        "threshold of another run",
        "files",
        other_threshold,
        late=True,
        beyond="PyTorch's logits are right, and the contract is the bundle's own word: no image says which "
        "threshold the run had.",
    ),
)
