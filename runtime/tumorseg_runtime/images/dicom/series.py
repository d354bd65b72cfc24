"""One window for all DICOM files of a series, where it is asked for.

Without a window or table of its own, a frame of more than 8 bits is shown from its own minimum to its
maximum, so that one tissue has another gray in the next slice. Here the range is that of all such frames of a
series, by its Series Instance UID and in the modality's unit. All files are decoded once for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.dicom.lookup_tables import Span, span_of
from tumorseg_runtime.images.dicom.pixel_data import GRAYS
from tumorseg_runtime.images.dicom.read import stored_frames, told


def series_spans(paths: Iterable[Path]) -> dict[Path, Span]:
    """The range of its series for each file that needs one.

    A file without a Series Instance UID is a series of its own; one that cannot be read has none, and reading
    it says why.
    """
    spans: dict[str, Span] = {}
    series: dict[Path, str] = {}
    for path in paths:
        try:
            found = list(_ranges(path))
        except InputError:
            continue
        for name, low, high in found:
            before = spans.get(name, (low, high))
            spans[name] = min(low, before[0]), max(high, before[1])
            series[path] = name
    return {path: spans[name] for path, name in series.items()}


def _ranges(path: Path) -> Iterator[tuple[str, float, float]]:
    """Series, minimum and maximum of each frame that needs a window."""
    for file, index, stored in stored_frames(path):
        if file.header.PhotometricInterpretation in GRAYS:
            with told(path, f"frame [{index}]"):
                span = span_of(stored, file.header, index)
            if span is not None:
                yield str(file.header.get("SeriesInstanceUID") or path), *span
