"""Engines on disk: `<name>.engine` with `<name>.engine.json` beside it, which says what it is and seals it.

TensorRT itself does not notice every flipped byte or truncated file, and loads an engine of another network
without a word. So an engine is known by its key (which graph, which tool and version, for which GPU, with
which profile) and checked by its SHA-256 before TensorRT sees it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import BackendError, BundleError, InputError
from tumorseg_runtime.core.files import locked, make_folder, write_bytes, write_text
from tumorseg_runtime.core.reading import read_regular
from tumorseg_runtime.core.records import Count, Format, Sha256, to_json
from tumorseg_runtime.device.trust import PRIVATE, require_trusted

SCHEMA = 1
SUFFIX = ".engine"
TOOLS = ("tensorrt", "tensorrt_rtx")
_LOCK = ".engines.lock"
_FORMAT = Format("record of an engine", "build the engine again", SCHEMA, max_bytes=2**20)


class OtherMachineError(BackendError):
    """An artefact that is whole, but made for another machine: its GPU, its CPU, its version of TensorRT."""


@dataclasses.dataclass(frozen=True)
class Profile:
    """Batch sizes that an engine takes: smallest, the one it is tuned for, largest."""

    smallest: int
    tuned: int
    largest: int

    def __post_init__(self) -> None:
        if not 1 <= self.smallest <= self.tuned <= self.largest:
            raise InputError(
                f"batch profile is {self.smallest},{self.tuned},{self.largest}, expected three numbers from "
                "1 on that do not fall (smallest, tuned, largest): for example 1,4,8"
            )

    @classmethod
    def parse(cls, text: str) -> Profile:
        """Read '1,4,8'; raises InputError."""
        parts = text.split(",")
        if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
            raise InputError(f"batch profile is '{text}', expected three numbers such as 1,4,8")
        return cls(*map(int, parts))


@dataclasses.dataclass(frozen=True)
class EngineKey:
    """What an engine is: two engines of one key serve the same, two of different keys never mix.

    onnx_sha256: of the graph it was built from. bundle_sha256: `Bundle.digest()` for an engine that a device
        built, None for one inside a bundle, which its bundle seals.
    tool, tool_version: 'tensorrt' or 'tensorrt_rtx', and the exact version, which alone can load it.
    capabilities: compute capabilities that it runs on, 87 for 8.7.
    gpu: name of the GPU that it was tuned on, None where it was built without one.
    workspace_mb: limit on scratch memory while building, in MiB; None for all there was.
    """

    onnx_sha256: Sha256
    bundle_sha256: Sha256 | None
    precision: str
    tool: str
    tool_version: str
    capabilities: tuple[int, ...]
    gpu: str | None
    profile: Profile
    workspace_mb: int | None

    def digest(self) -> str:
        """SHA-256 of the key, as 64 hexadecimal digits."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def name(self) -> str:
        """File name in a device folder: readable, and different for every key."""
        targets = "-".join(f"sm{one}" for one in self.capabilities)
        return f"{self.tool}-{self.precision}-{targets}-{self.digest()[:16]}{SUFFIX}"


@dataclasses.dataclass(frozen=True)
class EngineRecord:
    """What lies beside an engine: its seal and its key."""

    sha256: Sha256
    bytes: Count
    key: EngineKey


@dataclasses.dataclass(frozen=True)
class Engine:
    """An engine as it was read: the bytes are those that were hashed."""

    path: Path
    key: EngineKey
    data: bytes = dataclasses.field(repr=False)


def record_of(engine: Path) -> Path:
    """Where the record of an engine's file lies."""
    return engine.with_name(f"{engine.name}.json")


def write_engine(path: Path, data: bytes, key: EngineKey) -> None:
    """Write an engine, then its record, which makes it valid; raises InputError where the disk refuses."""
    make_folder(path.parent, PRIVATE)
    record = EngineRecord(hashlib.sha256(data).hexdigest(), len(data), key)
    with locked(path.with_name(_LOCK), path.parent, wait=True):  # an engine and its record belong together
        record_of(path).unlink(missing_ok=True)
        write_bytes(path, data)
        write_text(record_of(path), to_json({"schema": SCHEMA, **dataclasses.asdict(record)}))


def read_key(path: Path) -> EngineKey:
    """The key of an engine that is as it was written; raises BundleError where it is not."""
    return read_engine(path).key


def read_engine(path: Path, data: bytes | None = None, record: bytes | None = None) -> Engine:
    """An engine that is as it was written; raises BundleError where it is not.

    data, record: the bytes of both files, where they were read; else they are read here, once.
    """
    if record is None:
        known = read_record(path)
    else:
        known = _FORMAT.parse_record(record, record_of(path), EngineRecord)
    try:
        data = read_regular(path, known.bytes) if data is None else data
    except OSError:
        data = b""
    if (len(data), hashlib.sha256(data).hexdigest()) != (known.bytes, known.sha256):
        raise BundleError(
            f"{path}: is missing, cut off or altered (SHA-256 differs from {record_of(path).name}): "
            "build the engine again"
        )
    return Engine(path, known.key, data)


def read_record(engine: Path) -> EngineRecord:
    """The record of an engine, whose own bytes are not looked at; raises BundleError."""
    return _FORMAT.read_record(record_of(engine), EngineRecord)


def engines_in(folder: Path) -> list[Path]:
    """Engines of a device folder that have a record, by name."""
    return [path for path in sorted(folder.glob(f"*{SUFFIX}")) if record_of(path).is_file()]


def latest_engine(folder: Path, bundle: Bundle, precision: str, form: str = "onnx") -> Path | None:
    """The engine that was built last in a device folder from this form of this very bundle, None where there
    is none.

    Its own bytes are not looked at; raises BundleError where a record is damaged, or others may change them.
    """
    paths = sorted(engines_in(folder), key=lambda path: record_of(path).stat().st_mtime_ns, reverse=True)
    require_trusted(folder, *paths, *map(record_of, paths))
    wanted = (bundle.digest(), precision)
    files = (one.file for one in bundle.artefacts if one.format != form)
    others = {bundle.files[file].sha256 for file in files if file in bundle.files}
    for path in paths:
        key = read_record(path).key
        if (key.bundle_sha256, key.precision) == wanted and key.onnx_sha256 not in others:
            return path
    return None


def find_engine(folder: Path, bundle: Bundle, precision: str, form: str = "onnx") -> Engine:
    """The engine that was built last in a device folder from this form of this very bundle, whole.

    Raises BackendError where there is none, BundleError where one of its engines is damaged.
    """
    path = latest_engine(folder, bundle, precision, form)
    if path is None:
        of, option = ("", "") if form == "onnx" else (f"{form} ", f" --form {form}")
        raise BackendError(
            f"{folder}: has no {precision} {of}engine of bundle {bundle.digest()[:16]} "
            f"({len(engines_in(folder))} of others): "
            f"tumorseg build {bundle.root} --device-folder {folder}{option}"
        )
    return read_engine(path)


def require_machine(path: Path, key: EngineKey, versions: dict[str, str], capability: int, gpu: str) -> None:
    """Raise OtherMachineError where the engine is not for this GPU (sm_<capability>, name) and these tools.

    versions: installed version by tool.
    """
    installed = versions.get(key.tool, "none")
    if installed != key.tool_version:
        raise OtherMachineError(
            f"{path.name}: is for {key.tool} {key.tool_version}, {installed} is installed: "
            f"install {key.tool_version}, or build the engine again"
        )
    if capability not in key.capabilities:
        raise OtherMachineError(
            f"{path.name}: is for {', '.join(f'sm_{one}' for one in key.capabilities)}, this GPU ({gpu}) is "
            f"sm_{capability}: build an engine for it"
        )
    if key.gpu is not None and key.gpu != gpu:
        raise OtherMachineError(
            f"{path.name}: was tuned on {key.gpu}, this GPU is {gpu}: build the engine again on this device"
        )
