"""The device folder: what one device has found out about one bundle, beside the sealed bundle.

    <bundle>.device/<bundle's hash>-<device's hash>/ranking.json      or the same below the user's cache,
                                                                     ~/.cache/tumorseg

The device's hash covers processor, GPUs and driver, so that nothing is used on a machine, or under a driver,
that it was not made for. `ranking.json` is what `backend="auto"` follows; `tumorseg bench --rank` writes it:

    schema    1
    bundle    SHA-256 of bundle.json
    device    the facts that make the device's hash
    entries   list, in the order in which `auto` tries them: backend, device, precision, batch,
              versions (name -> version), parity ('passed', 'refused' or 'unverified'), median_s (None if
              not measured), detail

Engines that `tumorseg build` makes may lie in the same folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Annotated, Any

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import BundleError
from tumorseg_runtime.core.files import make_folder, write_text
from tumorseg_runtime.core.records import Format, Pattern, Range, to_json
from tumorseg_runtime.device.driver import gpus
from tumorseg_runtime.device.trust import PRIVATE, require_trusted

SCHEMA = 1
RANKING = "ranking.json"
PASSED = "passed"
_DIGITS = 16  # of each hash in the folder's name
_AGAIN = "measure again with tumorseg bench --rank"
_FORMAT = Format("ranking of backends", _AGAIN, SCHEMA, max_bytes=2**20)
_CPU_INFO = Path("/proc/cpuinfo")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One backend on this device.

    batch: images per inference when it was timed. versions: of the packages that ran, as the session said.
    parity: 'passed', 'refused' or 'unverified'. median_s: seconds per inference, None where not measured.
    detail: for people: the breach, the reason, or the spread.
    """

    backend: str
    device: str
    precision: str
    batch: Annotated[int, Range(1)]
    versions: dict[str, str]
    parity: Annotated[str, Pattern("passed|refused|unverified", "passed, refused or unverified")]
    median_s: Annotated[float, Range(0)] | None
    detail: str = ""


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Backends in the order in which `auto` tries them."""

    bundle: str
    device: dict[str, Any]
    entries: tuple[Entry, ...]


def device_facts() -> dict[str, Any]:
    """What tells this device from another: processor, GPUs and driver."""
    found = [dataclasses.asdict(gpu) for gpu in gpus()]
    return {
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "cpus": os.cpu_count(),
        "gpu": found[0] if found else None,
        **({"more_gpus": found[1:]} if found[1:] else {}),
    }


def folder_name(bundle: Bundle) -> str:
    """Name of this device's folder for a bundle: both hashes, shortened."""
    facts = json.dumps(device_facts(), sort_keys=True).encode()
    return f"{bundle.digest()[:_DIGITS]}-{hashlib.sha256(facts).hexdigest()[:_DIGITS]}"


def beside(bundle: Bundle) -> Path:
    """This device's folder beside the bundle; it need not exist."""
    root = bundle.root.resolve()
    return root.with_name(f"{root.name}.device") / folder_name(bundle)


def in_cache(bundle: Bundle) -> Path:
    """This device's folder in the user's cache; it need not exist."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "tumorseg" / folder_name(bundle)


def find(bundle: Bundle) -> Path | None:
    """The folder that exists: the one beside the bundle, else the one in the cache, else None."""
    return next((path for path in (beside(bundle), in_cache(bundle)) if path.is_dir()), None)


def write_ranking(folder: Path, bundle: Bundle, entries: tuple[Entry, ...]) -> Ranking:
    """Write the entries in their order, those that were not measured last; raises InputError."""
    entries = tuple(sorted(entries, key=lambda entry: entry.median_s is None))
    ranking = Ranking(bundle.digest(), device_facts(), entries)
    make_folder(folder, PRIVATE)
    write_text(folder / RANKING, to_json({"schema": SCHEMA, **dataclasses.asdict(ranking)}))
    return ranking


def read_ranking(folder: Path, bundle: Bundle) -> Ranking | None:
    """The ranking in a device folder, None where there is none.

    Raises BundleError for one that is damaged, of another schema, made for another bundle or device, or
    that others may change.
    """
    path = folder / RANKING
    require_trusted(folder, path)
    ranking = _FORMAT.read_if_there(path, Ranking)
    if ranking is None:
        return None
    for name, got, expected in (
        ("bundle", ranking.bundle, bundle.digest()),
        ("device", ranking.device, device_facts()),
    ):
        if got != expected:
            raise BundleError(f"{path}: its {name} is {got}, expected {expected}: {_AGAIN}")
    return ranking


def _cpu_name() -> str:
    """Model of the processor as Linux tells it; where it does not, what Python knows."""
    wanted = ("model name", "hardware", "cpu part")
    if _CPU_INFO.is_file():
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
        known = {
            key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)
        }
        for name in wanted:
            if known.get(name):
                return known[name]
    return platform.processor() or platform.machine()
