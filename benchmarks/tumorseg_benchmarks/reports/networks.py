"""One network on the page of a benchmark: its bench.json, and its parity.json where there is one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class NetworkReport:
    """title: of headings. bench: values of bench.json. parity: of parity.json, where there is one."""

    title: str
    bench: Mapping[str, Any]
    parity: Mapping[str, Any] | None

    @property
    def lead(self) -> str:
        """One sentence below the title."""
        machine = self.bench["machine"]
        return f"{machine['cpu']}, {machine['usable_cores']} cores; GPU: {machine['gpu']}. {machine['date']}."

    @property
    def threads(self) -> int:
        """The thread count of the summaries: the last one."""
        return int(self.bench["plan"]["threads"][-1])

    def measured(self, batch: int | None = None, threads: int | None = None) -> list[Row]:
        """Rows with figures, of a batch size and thread count."""
        return [
            row
            for row in self.bench["rows"]
            if row["status"] == "measured"
            and batch in (None, row["batch"])
            and threads in (None, row["threads"])
        ]

    @property
    def first(self) -> list[Row]:
        """Measured rows at the smallest batch and the last thread count."""
        return self.measured(min(self.bench["plan"]["batches"]), self.threads)

    @property
    def plans(self) -> list[tuple[int, int]]:
        """(batch, threads) of all tables."""
        plan = self.bench["plan"]
        return [(batch, threads) for threads in plan["threads"] for batch in plan["batches"]]

    def dice(self) -> dict[str, Mapping[str, Any]]:
        """Task figures by the variant's name, from parity.json."""
        rows = self.parity["rows"] if self.parity else []
        return {row["variant"]: row["noninferiority"] for row in rows if row.get("noninferiority")}
