"""What `pip install 'tumorseg[cpu]'` puts on a device: megabytes by package."""

from __future__ import annotations

import importlib.metadata
import re

from tumorseg_benchmarks.reports.figure import Figure
from tumorseg_runtime.core.errors import BackendError

DISTRIBUTION, EXTRA = "tumorseg", "cpu"


def measure_install() -> list[Figure]:
    """Sizes of the files of every distribution that is needed, as installed here; the sum first.

    Compiled Python files are left out: they are made at the first import.
    """
    sizes = {name: _megabytes(name) for name in closure(DISTRIBUTION, EXTRA)}
    ordered = sorted(sizes.items(), key=lambda item: -item[1])
    total = Figure(f"{DISTRIBUTION}[{EXTRA}], all packages", sum(sizes.values()), "MB")
    return [
        total,
        *(Figure(name, size, "MB", note=importlib.metadata.version(name)) for name, size in ordered),
    ]


def closure(distribution: str, extra: str) -> list[str]:
    """The distribution, what it needs with this extra, and what these need; by their normalised names.

    Raises BackendError where one of them is not installed.
    """
    from packaging.requirements import Requirement  # comes with onnxruntime

    found: list[str] = []
    waiting = [(distribution, extra)]
    while waiting:
        name, wanted = waiting.pop()
        if name in found:
            continue
        found.append(name)
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError as error:
            raise BackendError(
                f"{name} is not installed, expected it with {distribution}[{extra}]: "
                f"pip install '{distribution}[{extra}]'"
            ) from error
        for requirement in map(Requirement, lines):
            if requirement.marker is None or requirement.marker.evaluate({"extra": wanted}):
                extras = sorted(requirement.extras) or [""]
                waiting += [(re.sub(r"[-_.]+", "-", requirement.name).lower(), one) for one in extras]
    return found


def _megabytes(name: str) -> float:
    files = importlib.metadata.distribution(name).files or []
    paths = [file.locate() for file in files if file.suffix != ".pyc"]
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6  # type: ignore[attr-defined]
