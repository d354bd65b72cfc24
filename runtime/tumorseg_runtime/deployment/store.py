"""Bundles in the field: install -> self-test -> activate, and roll back, as one atomic operation each.

    <store>/bundles/<SHA-256 of bundle.json>/           bundles, whole and tested before they get this name
    <store>/bundles/<SHA-256 of bundle.json>.device/    what this device made for it: never touched here
    <store>/active.json                                 {"current": <hash>, "previous": <hash or null>}
    <store>/lock                                        there and held while somebody changes the store

A bundle is checked where it lies, against its seal and, where a public key is given, its signature. Then the
bytes that were hashed are written under a name that starts with '.incoming-', checked once more, tested on
this device and synced to the disk; then it is renamed to its hash; then a rename replaces `active.json`. The
bundle that served until then stays as `previous`. Killed or cut off from power at any point, the store still
points at a bundle that was tested; what a dead installation left behind is removed by the next one.

Whatever is damaged in a store, installing a good bundle puts it right, and `roll_back` finds a whole bundle
if there is one. Only bundles and what is called '.incoming-' are ever removed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.bundle.seal import INDEX
from tumorseg_runtime.core.errors import BundleError, InputError
from tumorseg_runtime.core.files import locked, make_folder, publish, remove, write_bytes, write_text
from tumorseg_runtime.core.records import Format, Sha256, to_json

BUNDLES, ACTIVE, LOCK = "bundles", "active.json", "lock"
INCOMING = ".incoming-"
FORMAT = Format("pointer of a store", "install a bundle again", max_bytes=2**16, follow_links=False)
_INSTALLED = re.compile("[0-9a-f]{64}")
SelfTest = Callable[[Bundle], None]


@dataclasses.dataclass(frozen=True)
class Active:
    """What serves, and what served before: SHA-256 of each bundle's index."""

    current: Sha256
    previous: Sha256 | None


def self_test(bundle: Bundle) -> None:
    """Replay conformance files and golden images with ONNX Runtime on the CPU; raises ParityError or
    BackendError."""
    from tumorseg_runtime.inference.segmenter import Segmenter

    Segmenter.open(bundle, self_test="full")


def install(
    store: str | Path,
    source: str | Path,
    *,
    test: SelfTest = self_test,
    public_key: str | Path | None = None,
) -> Bundle:
    """Copy a bundle into the store, test it on this device, and let it serve from now on.

    test: raises where the bundle must not serve; pass your own to test the backend that you use.
    public_key: a PEM file; only a bundle that its owner signed is installed
    (`tumorseg_runtime.bundle.signature`).
    Raises BundleError, or what `test` raises, or CheckFailedError where the signature is missing or another
    key's, or InputError where the disk refuses or another process is changing the store; what served before
    then still serves.
    """
    store, source = Path(store), Path(source)
    if store.resolve().is_relative_to(source.resolve()):
        raise InputError(f"{store}: lies in the bundle {source}, which is sealed: choose another store")
    make_folder(store / BUNDLES)
    with locked(store / LOCK, store):
        try:
            for left_over in (store / BUNDLES).glob(f"{INCOMING}*"):
                remove(left_over)
            digest = _take_in(store, source, test, public_key)
            _point(store, digest)
            _sweep(store)
        except OSError as error:
            raise InputError(
                f"{store}: {source} was not installed ({error.strerror or error}), what served still serves: "
                "free space or rights on that disk"
            ) from error
    return Bundle.read_index(store / BUNDLES / digest)


def roll_back(store: str | Path) -> Bundle:
    """Let the bundle serve again that served before; the present one becomes `previous`.

    Where the bundle before is damaged or gone, or `active.json` cannot be read, it is the whole bundle that
    was installed last among the others. Raises BundleError where there is none; nothing changes then.
    """
    store = Path(store)
    with locked(store / LOCK, store):
        active = _readable(store)
        previous, current = (None, None) if active is None else (active.previous, active.current)
        fault = BundleError(f"{store}: has no earlier bundle to go back to: install one")
        for digest in (previous, *(one for one in _installed(store) if one not in (previous, current))):
            if digest is None:
                continue
            try:
                bundle = _open(store, digest)
            except BundleError as error:
                fault = error if digest == previous else fault
            else:
                _write_active(store, Active(digest, current))
                return bundle
    raise fault


def open_active(store: str | Path) -> Bundle:
    """The bundle that serves, every hash checked; raises BundleError where none does or it is damaged."""
    store = Path(store)
    active = read_active(store)
    if active is None:
        raise BundleError(f"{store}: no bundle is installed there: tumorseg install {store} BUNDLE")
    return _open(store, active.current)


def read_active(store: Path) -> Active | None:
    """What the store points at, None where nothing was ever installed; raises BundleError if unreadable."""
    return FORMAT.read_if_there(store / ACTIVE, Active)


def _open(store: Path, digest: str) -> Bundle:
    """A bundle of the store, as it was installed; raises BundleError."""
    bundle = Bundle.open(store / BUNDLES / digest)
    if bundle.digest() != digest:
        raise BundleError(
            f"{bundle.root}: its index has SHA-256 {bundle.digest()[:16]}, expected {digest[:16]}: "
            f"tumorseg rollback {store}, or install the bundle again"
        )
    return bundle


def _readable(store: Path) -> Active | None:
    """What the store points at; None where it points at nothing that can be read."""
    try:
        return read_active(store)
    except BundleError:
        return None


def _is_whole(store: Path, digest: str) -> bool:
    try:
        _open(store, digest)
    except BundleError:
        return False
    return True


def _installed(store: Path) -> list[str]:
    """Names of the bundles in the store, whole or not, the one that was installed last first."""
    with contextlib.suppress(FileNotFoundError):
        found = [entry for entry in os.scandir(store / BUNDLES) if _INSTALLED.fullmatch(entry.name)]
        found.sort(key=lambda entry: entry.stat(follow_symlinks=False).st_mtime_ns, reverse=True)
        return [entry.name for entry in found]
    return []


def _take_in(store: Path, source: Path, test: SelfTest, public_key: str | Path | None) -> str:
    """Check, copy, check the copy, test, rename; returns the bundle's hash."""
    bundle = Bundle.open(source, public_key)
    digest = bundle.digest()
    final = store / BUNDLES / digest
    if not final.is_symlink() and _is_whole(store, digest):
        for name, data in bundle.beside().items():  # it may have been installed unsigned
            write_bytes(final / name, data)
        test(Bundle.open(final, public_key))  # the device may have changed since it was tested
        return digest
    part = store / BUNDLES / f"{INCOMING}{os.getpid()}"
    with _removed_on_failure(part):
        _copy(bundle, part)
        test(Bundle.open(part, public_key))
        damaged = part.with_name(f"{INCOMING}damaged-{os.getpid()}")
        publish(part, final, aside=damaged if os.path.lexists(final) else None)
    return digest


def _copy(bundle: Bundle, part: Path) -> None:
    """Write the bytes that were hashed, and nothing that the bundle does not list."""
    part.mkdir()
    beside = {INDEX: bundle.index, **bundle.beside()}
    for name in (*beside, *sorted(bundle.files)):
        make_folder((part / name).parent)
        write_bytes(part / name, beside[name] if name in beside else bundle.read(name), durable=False)


@contextlib.contextmanager
def _removed_on_failure(part: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:  # KeyboardInterrupt, too
        shutil.rmtree(part, ignore_errors=True)
        raise


def _point(store: Path, digest: str) -> None:
    """Let a bundle serve, and keep the one that served before: the first that is whole, where several may
    have."""
    active = _readable(store)
    served = () if active is None else (active.current, active.previous)
    before = [name for name in (*served, *_installed(store)) if name not in (None, digest)]
    wanted = Active(digest, next((name for name in before if name and _is_whole(store, name)), None))
    if wanted != active:
        _write_active(store, wanted)


def _write_active(store: Path, active: Active) -> None:
    """Replace `active.json`, whatever is there."""
    path = store / ACTIVE
    if path.is_dir() and not path.is_symlink():
        remove(path)
    write_text(path, to_json(dataclasses.asdict(active), indent=None))


def _sweep(store: Path) -> None:
    """Remove bundles that neither serve nor served before, and nothing else."""
    active = _readable(store)
    kept = set() if active is None else {active.current, active.previous}
    for name in _installed(store):
        if name not in kept:
            remove(store / BUNDLES / name)
