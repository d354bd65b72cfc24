"""The bundle: a sealed folder that is all a device needs.

`bundle.json` lists every file with its SHA-256 and size; a file too many is as wrong as a file too few
or a changed one. The exporter writes it through the same classes (`tumorseg_export.bundle.export`). Only a
signature of `bundle.json` and its hash may lie beside it (`tumorseg_runtime.bundle.seal`). What is used of a
bundle is the bytes that were hashed (`Bundle.read`), never the file under that name a moment later.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Literal

from tumorseg_runtime.bundle.seal import (
    FORMAT,
    INDEX,
    INDEX_HASH,
    SCHEMA,
    SIGNATURE,
    FileRecord,
    differences,
    index_hash_text,
    read_beside,
    read_index_bytes,
    read_sealed,
    sha256_of,
)
from tumorseg_runtime.bundle.signature import verify_signature
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BundleError
from tumorseg_runtime.core.records import InnerPath, Line, to_json

__all__ = [
    "FORMAT", "GOLDEN_FOLDER", "INDEX", "INDEX_HASH", "SIGNATURE", "Artefact", "Bundle", "FileRecord",
    "Verdict", "index_hash_text", "sha256_of",
]  # fmt: skip
GOLDEN_FOLDER = "golden"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What is known of an artefact's parity with PyTorch under one backend and device.

    status: 'passed' or 'unverified'; a bundle with a breach is never written.
    detail: the certificate's file for 'passed', the reason for 'unverified'.
    """

    backend: str
    device: str
    status: Literal["passed", "unverified"]
    detail: str


@dataclasses.dataclass(frozen=True)
class Artefact:
    """One form of the network.

    file: path inside the bundle. precision: 'fp32', 'fp16', 'bf16' or 'int8'.
    max_batch: largest batch, None where the file takes any.
    tools: versions of what made it.
    weights: a second file, for a format that keeps its weights beside the graph.
    """

    file: InnerPath
    format: str
    precision: str
    max_batch: int | None
    tools: dict[str, str]
    parity: tuple[Verdict, ...]
    weights: InnerPath | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """All files of the artefact, inside the bundle."""
        return (self.file,) if self.weights is None else (self.file, self.weights)


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A bundle whose files have been checked. `model`, `training` and `provenance` are facts for people.

    index: the bytes of `bundle.json` that it was read from, empty while it is being made.
    held: files that were read with their check and not yet asked for.
    """

    root: Path
    name: Line
    contract: Contract
    artefacts: tuple[Artefact, ...]
    golden: tuple[InnerPath, ...]
    files: dict[InnerPath, FileRecord]
    model: dict[str, Any]
    training: dict[str, Any]
    provenance: dict[str, Any]

    index: bytes = dataclasses.field(default=b"", compare=False, repr=False)
    held: dict[str, bytes] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def __repr__(self) -> str:
        artefacts = ", ".join(artefact.file for artefact in self.artefacts)
        return f"<Bundle {self.name} in {self.root}: {artefacts}>"

    @classmethod
    def open(
        cls,
        root: str | Path,
        public_key: str | Path | None = None,
        hold: Callable[[Bundle], Collection[str]] = lambda bundle: (),
    ) -> Bundle:
        """Read `bundle.json` and check every file against its seal; raises BundleError.

        public_key: a PEM file; only a bundle that its owner signed is opened
            (`tumorseg_runtime.bundle.signature`).
        hold: names of files that `read` will be asked for next: they are read once, with the check.
        """
        bundle = cls.read_index(Path(root), public_key)
        problems = bundle.problems(hold(bundle))
        if problems:
            raise BundleError(
                f"{root}: the bundle is not as it was sealed: {'; '.join(problems)}: copy or export it again"
            )
        return bundle

    @classmethod
    def read_index(cls, root: Path, public_key: str | Path | None = None) -> Bundle:
        """Read `bundle.json` without looking at the other files; raises BundleError.

        With a public key nothing is made of its bytes before they have passed the signature's check.
        """
        index = read_index_bytes(root)
        if public_key is not None:
            verify_signature(root, index, public_key)
        return FORMAT.parse_record(index, root / INDEX, cls, root=root, index=index, held={})

    def draft(self, **changes: Any) -> Bundle:
        """The same bundle with these fields changed, as one that is being made: without index and seals."""
        return dataclasses.replace(self, **{"index": b"", "held": {}, "files": {}, **changes})

    def signed_by(self, public_key: str | Path) -> str:
        """The fingerprint of the key, if its owner signed this index; else raises CheckFailedError."""
        return verify_signature(self.root, self.index, public_key)

    def to_index(self) -> str:
        """The text of `bundle.json`: the same bundle gives the same bytes."""
        values = dataclasses.asdict(dataclasses.replace(self, index=b"", held={}))
        for name in ("root", "index", "held"):  # where it lies and what was read are not part of it
            del values[name]
        return to_json({"schema": SCHEMA, **values})

    def digest(self) -> str:
        """SHA-256 of the `bundle.json` that was read, which seals all other files: the name of this very
        bundle."""
        return hashlib.sha256(self.index or self.to_index().encode()).hexdigest()

    def read(self, name: str) -> bytes:
        """The bytes of one of its files, which are those of its seal; raises BundleError where they are not.

        A bundle that is being made, and has no index yet, has no seals: its files are read as they are.
        """
        if name in self.held:
            return self.held.pop(name)
        seal = self.files.get(name)
        if seal is not None:
            return read_sealed(self.root, name, seal)
        if self.index:
            raise BundleError(f"{self.root}: {name} has no seal, expected one in {INDEX}: export it again")
        return (self.root / name).read_bytes()

    def sha256(self, name: str) -> str:
        """SHA-256 of one of its files: the seal's, or of a bundle that is being made the file's."""
        return self.files[name].sha256 if name in self.files else sha256_of(self.root / name)

    def beside(self) -> dict[str, bytes]:
        """What lies beside the index without being listed there: its signature, its hash; name -> bytes."""
        return read_beside(self.root)

    def problems(self, hold: Collection[str] = ()) -> list[str]:
        """What differs from the seal, one line per file; empty for a whole bundle. hold: as in `open`."""
        problems = differences(self.root, self.files, hold, self.held)
        problems += [
            f"{name} is an artefact without a seal"
            for artefact in self.artefacts
            for name in artefact.files
            if name not in self.files
        ]
        problems += [
            f"golden image {name} has no {suffix} under seal"
            for name in self.golden
            for suffix in (".png", ".npz")
            if f"{GOLDEN_FOLDER}/{name}{suffix}" not in self.files
        ]
        return problems

    def artefact(self, format: str, precision: str) -> Artefact:
        """The artefact of this format and precision; raises BundleError naming those that are there."""
        for artefact in self.artefacts:
            if (artefact.format, artefact.precision) == (format, precision):
                return artefact
        there = ", ".join(f"{a.format} {a.precision}" for a in self.artefacts)
        other = next((a.precision for a in self.artefacts if a.format == format), None)
        take = f"take it by --precision {other}" if other else "take one of these by --backend"
        raise BundleError(
            f"{self.root}: has no {precision} {format} artefact, it has {there}: {take}, or export that one"
        )
