"""Bytes to tensor: every path of preprocessing must give the golden vectors' bits.

| path | from | to |
|---|---|---|
| runtime | file | pixels, resized image, tensor, as inference makes them |
| rule | pixels | resized image, tensor, by the resize rule in numpy in place of OpenCV's |
| training | file | tensor of training's own dataset |
| deploy | file | resized uint8 image, the input of the deploy form |
| CUDA source | pixels | tensor, by the kernel's source compiled by g++ |
| GPU | pixels | tensor, by the kernel on this machine's GPU |
"""

from __future__ import annotations

import dataclasses
import importlib.util
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_benchmarks.variants.host_kernel import HostKernel, why_no_compiler
from tumorseg_runtime.bundle.bundle import sha256_of
from tumorseg_runtime.conformance.files import Vector, digest, expected_digests, vectors
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import TumorsegError
from tumorseg_runtime.core.files import write_bytes
from tumorseg_runtime.device.driver import why_no_driver
from tumorseg_runtime.images.frames import read_frames
from tumorseg_runtime.images.read import write_png
from tumorseg_runtime.processing.preprocess import Preprocessor, resize, resize_engine, resize_rule

UInt8Array = npt.NDArray[np.uint8]
# (file, the pixels it must give, contract) -> what the path makes: 'pixels', 'resized', 'tensor'
Made = Mapping[str, npt.NDArray[Any]]
Way = Callable[[Path, UInt8Array, Contract], Made]
PASSED, REFUSED, UNVERIFIED = "passed", "refused", "unverified"


@dataclasses.dataclass(frozen=True)
class VectorCheck:
    """One path over one golden vector. reason: what differs, or why it was not run; empty if passed."""

    path: str
    vector: str
    status: str
    reason: str = ""

    def to_dict(self) -> dict[str, str]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


def by_runtime(file: Path, pixels: UInt8Array, contract: Contract) -> Made:
    """As inference does it."""
    read = next(read_frames(file)).pixels
    tensor = Preprocessor(contract)(read, file.name)
    return {"pixels": read, "resized": resize(read, contract.height, contract.width), "tensor": tensor}


def by_rule(file: Path, pixels: UInt8Array, contract: Contract) -> Made:
    """By the rule in numpy, whatever OpenCV gives here."""
    resized = resize_rule(pixels, contract.height, contract.width)
    return {"resized": resized, "tensor": Preprocessor(contract).normalise(resized)}


def by_deploy(file: Path, pixels: UInt8Array, contract: Contract) -> Made:
    """What a caller of the deploy form gives to it."""
    return {"resized": resize(next(read_frames(file)).pixels, contract.height, contract.width)}


def by_training(file: Path, pixels: UInt8Array, contract: Contract) -> Made:
    """By training's own dataset, of a split that holds the file alone."""
    from tumorseg_train.data.loader import SplitDataset
    from tumorseg_train.data.split import Item, Manifest

    mask = file.with_name(f"{file.stem}_mask.png")
    write_png(mask, np.zeros(pixels.shape[:2], np.uint8), durable=False)
    files = {path.name: sha256_of(path) for path in (file, mask)}
    height, width = pixels.shape[:2]
    item = Item(file.name, (mask.name,), "brain", "tumour", "test", height, width, 0, files)
    dataset = SplitDataset(Manifest(file.parent, 0, (item,)), "test", contract)
    return {"tensor": np.asarray(dataset[0][0].numpy())}


def by_cuda_source() -> Way:
    """By the CUDA kernel's source on the CPU; compiles it."""
    kernel = HostKernel()
    return lambda file, pixels, contract: {"tensor": kernel(pixels, contract)}


def by_gpu() -> Way:
    """By the kernel on this machine's GPU."""
    from tumorseg_runtime.processing.preprocess_cuda import open_preprocessor

    return lambda file, pixels, contract: {"tensor": open_preprocessor(contract)([pixels]).numpy()[0]}


@dataclasses.dataclass(frozen=True)
class PreprocessPath:
    """How a path is opened, and why it cannot be here.

    reads_dicom: None where it takes pixels, else whether it reads DICOM files.
    """

    open: Callable[[], Way]
    why_not: Callable[[], str | None] = lambda: None
    reads_dicom: bool | None = None


PATHS = {
    "runtime": PreprocessPath(lambda: by_runtime, reads_dicom=True),
    "rule": PreprocessPath(lambda: by_rule),
    "training": PreprocessPath(lambda: by_training, lambda: _not_installed("torch"), reads_dicom=False),
    "deploy": PreprocessPath(lambda: by_deploy, reads_dicom=True),
    "CUDA source": PreprocessPath(by_cuda_source, why_no_compiler),
    "GPU": PreprocessPath(by_gpu, why_no_driver),
}


def check_vectors(paths: Mapping[str, PreprocessPath] = PATHS) -> list[VectorCheck]:
    """All golden vectors through all paths; what cannot run here is unverified, with the reason."""
    checks: list[VectorCheck] = []
    for name, path in paths.items():
        if reason := path.why_not():
            checks += [VectorCheck(name, vector.name, UNVERIFIED, reason) for vector in vectors()]
            continue
        try:
            run = path.open()
        except TumorsegError as error:
            checks += [VectorCheck(name, vector.name, REFUSED, str(error)) for vector in vectors()]
            continue
        with tempfile.TemporaryDirectory() as folder:
            checks += [_check(name, path, run, vector, Path(folder)) for vector in vectors()]
    return checks


def _check(name: str, path: PreprocessPath, run: Way, vector: Vector, folder: Path) -> VectorCheck:
    if vector.dicom and path.reads_dicom is False:
        return VectorCheck(name, vector.name, UNVERIFIED, "this path reads no DICOM files")
    if vector.dicom and path.reads_dicom and (reason := _not_installed("pydicom")):
        return VectorCheck(name, vector.name, UNVERIFIED, reason)
    file = folder / vector.name
    write_bytes(file, vector.data, durable=False)
    expected = expected_digests()[vector.name]
    wrong = []
    for contract_name, contract in vector.contracts.items():
        try:
            made = run(file, vector.pixels, contract)
        except TumorsegError as error:
            return VectorCheck(name, vector.name, REFUSED, str(error))
        for what, array in made.items():
            key = what if what == "pixels" else f"{contract_name} {what}"
            if digest(array) != expected[key]:
                wrong.append(f"{key} {array.dtype} {array.shape} has other bits than the golden vector's")
    status = REFUSED if wrong else PASSED
    return VectorCheck(name, vector.name, status, "; ".join(dict.fromkeys(wrong)))


def _not_installed(package: str) -> str | None:
    return None if importlib.util.find_spec(package) else f"{package} is not installed"


def vectors_lines(checks: list[VectorCheck]) -> list[str]:
    """One line per path, for people."""
    lines = []
    for name in dict.fromkeys(check.path for check in checks):
        mine = [check for check in checks if check.path == name]
        passed = sum(check.status == PASSED for check in mine)
        line = f"{name}: {passed} of {len(mine)} golden vectors equal bit for bit"
        if name == "runtime":
            line += f" (resized by {resize_engine()})"
        reasons: dict[str, list[str]] = {}
        for check in mine:
            if check.status != PASSED:
                reasons.setdefault(f"{check.status}: {check.reason}", []).append(check.vector)
        lines.append(line)
        lines += [f"  {len(found)} {reason} ({', '.join(found[:3])})" for reason, found in reasons.items()]
    return lines
