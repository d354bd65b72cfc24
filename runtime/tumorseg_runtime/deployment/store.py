"""Bundles in the field: install -> self-test -> activate, and roll back, as one atomic operation each.

    <store>/bundles/<SHA-256 of bundle.json>/    bundles, whole and tested before they get this name
    <store>/active.json                          {"current": <hash>, "previous": <hash or null>}
    <store>/lock                                 there and held while somebody changes the store

A bundle is copied under a name that starts with '.incoming-', checked against its seal, against its signature
where a public key is given, tested on this device, and synced to the disk; then it is renamed to its hash;
then `active.json` is replaced by a rename. The bundle that served until then stays as `previous`. Killed or
cut off from power at any point, the store still points at a bundle that was tested; what a dead installation
left behind is removed by the next one.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tumorseg_runtime.bundle.bundle import SIGNATURE, Bundle
from tumorseg_runtime.bundle.signature import verify_signature
from tumorseg_runtime.core.errors import BundleError, InputError
from tumorseg_runtime.core.files import locked, make_folder, publish, write_bytes, write_text
from tumorseg_runtime.core.records import Format, Sha256, to_json

BUNDLES, ACTIVE, LOCK = "bundles", "active.json", "lock"
INCOMING = ".incoming-"
FORMAT = Format("pointer of a store", "install a bundle again", max_bytes=2**16)
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
    (`tumorseg_runtime.bundle.signature`). Raises BundleError, or what `test` raises, or CheckFailedError
    where the signature is missing or another key's, or InputError where the disk refuses or another process
    is changing the store; what served before then still serves.
    """
    store = Path(store)
    make_folder(store / BUNDLES)
    with locked(store / LOCK, store):
        try:
            _sweep(store)
            digest = _take_in(store, Path(source), test, public_key)
            before = read_active(store)
            if before is None or before.current != digest:
                _point(store, Active(digest, None if before is None else before.current))
            _sweep(store)
        except OSError as error:
            raise InputError(
                f"{store}: {source} was not installed ({error.strerror}), what served still serves: "
                "free space or rights on that disk"
            ) from error
    return Bundle.read_index(store / BUNDLES / digest)


def roll_back(store: str | Path) -> Bundle:
    """Let the bundle serve again that served before; the present one becomes `previous`.

    Raises BundleError where there is none or it is no longer as it was sealed; nothing changes then.
    """
    store = Path(store)
    with locked(store / LOCK, store):
        active = read_active(store)
        if active is None or active.previous is None:
            raise BundleError(f"{store}: has no earlier bundle to go back to: install one")
        bundle = _open(store, active.previous)
        _point(store, Active(active.previous, active.current))
    return bundle


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


def _take_in(store: Path, source: Path, test: SelfTest, public_key: str | Path | None) -> str:
    """Copy, check, test, rename; returns the bundle's hash."""
    bundle = Bundle.read_index(source)
    if public_key is not None:
        verify_signature(bundle, public_key)
    digest = bundle.digest()
    final = store / BUNDLES / digest
    if final.is_dir() and not Bundle.read_index(final).problems():
        if public_key is not None:  # it may have been installed unsigned; the signed bytes are the same
            write_bytes(final / SIGNATURE, (source / SIGNATURE).read_bytes())
            verify_signature(Bundle.read_index(final), public_key)
        test(Bundle.open(final))  # it is there: the device may have changed since it was tested
        return digest
    part = store / BUNDLES / f"{INCOMING}{os.getpid()}"
    shutil.copytree(source, part, symlinks=True)
    copy = Bundle.open(part)
    if public_key is not None:  # of the copy: the source may have been changed meanwhile
        verify_signature(copy, public_key)
    test(copy)
    damaged = part.with_name(f"{INCOMING}damaged-{os.getpid()}")  # on the disk since it was installed
    publish(part, final, aside=damaged if final.exists() else None)
    return digest


def _point(store: Path, active: Active) -> None:
    """Replace `active.json`."""
    write_text(store / ACTIVE, to_json(dataclasses.asdict(active), indent=None))


def _sweep(store: Path) -> None:
    """Remove what dead installations left, and bundles that neither serve nor served before."""
    active = read_active(store)
    kept = set() if active is None else {active.current, active.previous}
    for path in (store / BUNDLES).iterdir():
        if path.name not in kept:
            shutil.rmtree(path)
