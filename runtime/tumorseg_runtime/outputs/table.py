"""`predictions.parquet`: the log of a run as a table, for who asks questions of many results at once."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

from tumorseg_runtime.core.files import writing
from tumorseg_runtime.outputs.results_log import ResultsLog

TABLE = "predictions.parquet"
ROWS = 10_000  # held in memory at a time


def write_table(log: ResultsLog) -> None:
    """A row for each line of the log, in its order; `line` is the whole of it as JSON."""
    import pyarrow
    from pyarrow import parquet

    text, count = pyarrow.string(), pyarrow.int64()
    schema = pyarrow.schema({
        "file": text, "image": text, "error": text, "frame": count, "frames": count, "height": count,
        "width": count, "margin": pyarrow.float64(), "lesions": count, "area_px": count, "masks": text,
        "line": text,
    })  # fmt: skip
    lines = log.lines()
    with writing(log.out / TABLE) as part, parquet.ParquetWriter(part, schema) as writer:
        while batch := [_row(line) for line in itertools.islice(lines, ROWS)]:
            writer.write_table(pyarrow.Table.from_pylist(batch, schema))


def _row(line: dict[str, Any]) -> dict[str, Any]:
    """area_px: of all lesions; null for volumes and failures, as is all that such a line does not hold."""
    lesions: list[dict[str, Any]] | None = line.get("lesions")
    row = {
        key: line.get(key)
        for key in ("file", "image", "error", "frame", "frames", "height", "width", "margin")
    }
    row |= {
        "lesions": None if lesions is None else line.get("lesion_count", len(lesions)),
        "area_px": None if lesions is None or "voxels" in line else sum(one["area_px"] for one in lesions),
        "masks": json.dumps(line["masks"]) if "masks" in line else None,
        "line": json.dumps(line),
    }
    return dict(_encoded(row))


def _encoded(row: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names of files that are not valid UTF-8, which Parquet holds no other text than, are escaped."""
    for key, value in row.items():
        yield key, value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
