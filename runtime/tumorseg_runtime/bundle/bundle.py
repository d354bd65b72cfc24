"""The bundle: a sealed folder that is all a device needs.

`bundle.json` lists every file with its SHA-256 and size; a file too many is as wrong as a file too few
or a changed one. The exporter writes it through the same classes (`tumorseg_export.bundle.export`). Only a
signature of `bundle.json` may lie beside it (`tumorseg_runtime.bundle.signature`).
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, Literal

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BundleError
from tumorseg_runtime.core.records import Count, Format, Sha256, to_json

SCHEMA = 1
INDEX = "bundle.json"
FORMAT = Format(
    "index of a bundle",
    "copy or export the bundle again",
    SCHEMA,
    renew="export again with this version of tumorseg",
    folder="a bundle made by `tumorseg export`",
    max_bytes=16 * 2**20,
)
SIGNATURE = "bundle.json.sig"
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

    file: path inside the bundle. precision: 'fp32', 'fp16' or 'bf16'.
    max_batch: largest batch, None where the file takes any.
    tools: versions of what made it.
    weights: a second file, for a format that keeps its weights beside the graph.
    """

    file: str
    format: str
    precision: str
    max_batch: int | None
    tools: dict[str, str]
    parity: tuple[Verdict, ...]
    weights: str | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """All files of the artefact, inside the bundle."""
        return (self.file,) if self.weights is None else (self.file, self.weights)


@dataclasses.dataclass(frozen=True)
class FileRecord:
    """Seal of one file: SHA-256 as 64 hexadecimal digits, and its size in bytes."""

    sha256: Sha256
    bytes: Count


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A bundle whose files have been checked. `model`, `training` and `provenance` are facts for people."""

    root: Path
    name: str
    contract: Contract
    artefacts: tuple[Artefact, ...]
    golden: tuple[str, ...]
    files: dict[str, FileRecord]
    model: dict[str, Any]
    training: dict[str, Any]
    provenance: dict[str, Any]

    @classmethod
    def open(cls, root: str | Path) -> Bundle:
        """Read `bundle.json` and check every file against its seal; raises BundleError."""
        root = Path(root)
        bundle = cls.read_index(root)
        problems = bundle.problems()
        if problems:
            raise BundleError(
                f"{root}: the bundle is not as it was sealed: {'; '.join(problems)}: copy or export it again"
            )
        return bundle

    @classmethod
    def read_index(cls, root: Path) -> Bundle:
        """Read `bundle.json` without looking at the other files; raises BundleError."""
        return FORMAT.read_record(root / INDEX, cls, root=root)

    def to_index(self) -> str:
        """The text of `bundle.json`: the same bundle gives the same bytes."""
        values = {"schema": SCHEMA, **dataclasses.asdict(self)}
        del values["root"]
        return to_json(values)

    def digest(self) -> str:
        """SHA-256 of `bundle.json`, which seals all other files: the name of this very bundle."""
        return sha256_of(self.root / INDEX)

    def problems(self) -> list[str]:
        """What differs from the seal, one line per file; empty for a whole bundle."""
        found = {
            path.relative_to(self.root).as_posix()
            for path in self.root.rglob("*")
            if path.is_symlink() or not path.is_dir()
        }
        found -= {INDEX, SIGNATURE}
        problems = [f"{name} is missing" for name in sorted(set(self.files) - found)]
        problems += [f"{name} does not belong to it" for name in sorted(found - set(self.files))]
        for name in sorted(found & set(self.files)):
            path, seal = self.root / name, self.files[name]
            if path.is_symlink() or not path.is_file():
                problems.append(f"{name} is a link or no regular file")
                continue
            size = path.stat().st_size
            if size != seal.bytes:
                problems.append(f"{name} has {size} bytes, expected {seal.bytes}")
            elif sha256_of(path) != seal.sha256:
                problems.append(f"{name} has the right size but other content (SHA-256 differs)")
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
        raise BundleError(
            f"{self.root}: has no {precision} {format} artefact, it has {there}: export that target"
        )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()
