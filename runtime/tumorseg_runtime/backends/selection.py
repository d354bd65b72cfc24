"""`backend="auto"`: the fastest backend that has passed parity on this very device, else ONNX Runtime.

What was chosen, and why each of the others was not, is said in `Segmenter.info.choice`. Nothing is measured
here: the ranking comes from the device folder (`tumorseg_runtime.device.cache`), and an entry counts only
while the versions of its packages are those that were measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tumorseg_runtime.backends import BACKENDS, open_session
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.backend import split_device
from tumorseg_runtime.core.errors import BackendError, BundleError, InputError
from tumorseg_runtime.core.session import Session

if TYPE_CHECKING:
    from tumorseg_runtime.device.cache import Entry

Opener = Callable[..., Session]
AUTO = "auto"
GPU_DEVICES = ("cuda", "tensorrt")
DEFAULT = ("onnxruntime", "cpu", "fp32")  # what serves while nothing has been measured


@dataclasses.dataclass(frozen=True)
class Selection:
    """Exactly one backend, device and precision, and the lines that say why."""

    backend: str
    device: str
    precision: str
    lines: tuple[str, ...] = ()


def open_auto(
    bundle: Bundle,
    device: str | None,
    precision: str | None,
    threads: int | None,
    folder: Path | None,
    opener: Opener | None = None,
) -> tuple[Session, Selection]:
    """Open the first backend of the ranking in `folder` that passed parity here and can be opened.

    device, precision: only entries with these; None for any. opener: of `open_choice`. Raises what
    opening ONNX Runtime raises where there is no ranking, and BackendError where there is one and none of its
    entries can serve.
    """
    from tumorseg_runtime.device.cache import RANKING, read_ranking

    ranking = None if folder is None else read_ranking(folder, bundle)
    if ranking is None:
        backend, default_device, default_precision = DEFAULT
        line = (
            f"chosen: {backend}: there is no {RANKING} of this device and driver; "
            "tumorseg bench --rank writes one"
        )
        there = [one.precision for one in bundle.artefacts if one.format in BACKENDS[backend].formats]
        if default_precision not in there and there:  # any was asked for
            default_precision = there[0]
        choice = Selection(backend, device or default_device, precision or default_precision, (line,))
        return open_choice(bundle, choice, threads, folder, opener), choice
    lines: list[str] = []
    for place, entry in enumerate(ranking.entries, start=1):
        choice = Selection(entry.backend, entry.device, entry.precision)
        reason = _why_not(entry, device, precision)
        if reason is None:
            try:
                session = open_choice(bundle, choice, threads, folder, opener)
            except (BackendError, BundleError, InputError) as error:
                reason = str(error)
            else:
                if session.info.versions == entry.versions:
                    rest = [f"not chosen: {_name(other)}: slower" for other in ranking.entries[place:]]
                    chosen = f"chosen: {_name(entry)}: number {place} of {len(ranking.entries)} in {RANKING}"
                    return session, dataclasses.replace(choice, lines=(chosen, *lines, *rest))
                reason = f"was measured with {entry.versions}, here is {session.info.versions}"
        lines.append(f"not chosen: {_name(entry)}: {reason}")
    raise BackendError(
        f"no backend in {RANKING} can serve ({'; '.join(lines)}): measure again with "
        "tumorseg bench --rank, or name a backend"
    )


def open_choice(
    bundle: Bundle,
    choice: Selection,
    threads: int | None,
    folder: Path | None,
    opener: Opener | None = None,
) -> Session:
    """A session of exactly this choice; raises as `open_session`, whose place `opener` takes on a GPU."""
    on_gpu = split_device(choice.device)[0] in GPU_DEVICES
    return (opener if opener and on_gpu else open_session)(
        bundle,
        backend=choice.backend,
        device=choice.device,
        precision=choice.precision,
        threads=threads,
        device_folder=folder,
    )


def _why_not(entry: Entry, device: str | None, precision: str | None) -> str | None:
    """Why an entry is passed over before anything is opened; None where nothing speaks against it."""
    from tumorseg_runtime.device.cache import PASSED

    if entry.backend not in BACKENDS:
        return "no such backend in this version of tumorseg"
    if entry.parity != PASSED:
        return f"parity {entry.parity}{f' ({entry.detail})' if entry.detail else ''}"
    if entry.median_s is None:
        return f"not measured{f' ({entry.detail})' if entry.detail else ''}"
    for what, asked, got in (("device", device, entry.device), ("precision", precision, entry.precision)):
        if asked not in (None, got):
            return f"{what} {asked} was asked for"
    return None


def _name(entry: Entry) -> str:
    return f"{entry.backend} {entry.device} {entry.precision}"
