"""Copies of a bundle that are broken on purpose: each must be refused, and the demo shows by what message."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from tumorseg_runtime.bundle.bundle import INDEX, INDEX_HASH, Artefact, Bundle, index_hash_text
from tumorseg_runtime.core.errors import BundleError, CheckFailedError, ParityError, TumorsegError
from tumorseg_runtime.core.files import write_bytes, write_text
from tumorseg_runtime.inference.segmenter import Segmenter

SHIFT = 0.02  # of the mean; the two usual means of RGB images, 0.485 and 0.5, are 0.015 apart


@dataclasses.dataclass(frozen=True)
class Refusal:
    """what: how the copy was broken. guard: the check that refused it. message: of the error."""

    what: str
    guard: str
    message: str


def break_copies(bundle: Bundle, artefact: Artefact) -> tuple[Refusal, ...]:
    """Break a copy of the bundle in two ways and open each; the bundle itself is not touched.

    artefact: the one that is opened, of format onnx. Raises CheckFailedError where a broken copy is served.
    """
    file = artefact.weights or artefact.file
    bit = f"one bit of {file} was flipped"
    mean = f"the mean of the normalisation was changed by {SHIFT} in {INDEX}; every hash is right"
    return (
        _refusal(bundle, artefact, bit, "seal", BundleError, lambda copy: flip_bit(copy.root / file)),
        _refusal(bundle, artefact, mean, "self-test", ParityError, shift_mean),
    )


def flip_bit(path: Path) -> None:
    """Flip the lowest bit of the byte in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    write_bytes(path, bytes(data), durable=False)


def shift_mean(bundle: Bundle) -> None:
    """Write an index with another mean: the fault of a program with a preprocessing of its own."""
    mean = tuple(value - SHIFT if value > 0.5 else value + SHIFT for value in bundle.contract.mean)
    changed = dataclasses.replace(bundle, contract=dataclasses.replace(bundle.contract, mean=mean))
    index = changed.to_index()
    write_text(bundle.root / INDEX, index, durable=False)
    write_text(bundle.root / INDEX_HASH, index_hash_text(index.encode()), durable=False)


def _refusal(
    bundle: Bundle, artefact: Artefact, what: str, guard: str, refused_by: type[TumorsegError],
    change: Callable[[Bundle], None],
) -> Refusal:  # fmt: skip
    """refused_by: what the guard raises; any other error is no refusal, and ends the demo."""
    with tempfile.TemporaryDirectory(prefix="tumorseg-demo-") as folder:
        root = Path(folder) / "broken-copy"
        shutil.copytree(bundle.root, root)
        change(dataclasses.replace(bundle, root=root))
        try:
            Segmenter.open(root, precision=artefact.precision, self_test=True)
        except refused_by as error:
            return Refusal(what, guard, str(error).replace(str(root), root.name))
    raise CheckFailedError(
        f"{bundle.root}: a copy was opened although {what}, expected the {guard} to refuse it: "
        "do not serve with this installation, and report this"
    )
