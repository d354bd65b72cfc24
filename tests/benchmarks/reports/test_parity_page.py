"""The page of a parity check: its verdict, its table, and the images on which artefacts do worst."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pytest

from tumorseg_benchmarks.parity.findings import Findings
from tumorseg_benchmarks.parity.parity import check_parity
from tumorseg_benchmarks.parity.rows import ParityRow
from tumorseg_benchmarks.reports.parity_page import parity_cases, parity_page, verdict
from tumorseg_benchmarks.reports.report import variant_facts
from tumorseg_benchmarks.variants.machine import load_average, machine_facts
from tumorseg_runtime.bundle.bundle import Bundle


@pytest.fixture(scope="module")
def rows(
    tiny_bundle: Bundle, conformance_cut_short: Callable[[], AbstractContextManager[None]]
) -> list[ParityRow]:
    """Parity of the tiny bundle on its golden images."""
    pytest.importorskip("onnxruntime")
    with conformance_cut_short():
        shares: list[float] = []
        found = check_parity(tiny_bundle, None, "test", 0, share=shares.append)
    assert (shares, shares[-1]) == (sorted(shares), pytest.approx(1.0))
    return found


def values(bundle: Bundle) -> dict[str, object]:
    load = {"before": load_average(), "after": load_average()}
    return {"machine": machine_facts(), "load_average": load, **variant_facts(bundle, None)}


@pytest.mark.slow
def test_what_could_not_run_here_is_neither_passed_nor_refused(
    rows: list[ParityRow], tiny_bundle: Bundle
) -> None:
    page = parity_page(Findings((), tuple(rows)), values(tiny_bundle))
    assert 'class="verdict passed"' in page
    assert "decide as PyTorch does; " in page
    assert " more could not be run here" in page
    table = page[page.index("<table") : page.index("</table>")]
    assert table.count('class="badge passed"') == sum(row.status == "passed" for row in rows) > 0
    lines, more = table.count('class="badge unverified"'), map(int, re.findall(r" and (\d+) more<", table))
    assert lines + sum(more) == sum(row.status == "unverified" for row in rows) > lines > 0
    assert 'class="badge refused"' not in page
    assert 'class="viewer"' in page, "where nothing flips, each image is there once"


def test_a_refused_artefact_is_first_and_named_in_the_verdict(
    rows: list[ParityRow], tiny_bundle: Bundle
) -> None:
    chosen = next(i for i, row in enumerate(rows) if row.worst is not None and row.report is not None)
    worst = rows[chosen].worst
    assert worst is not None
    flipped = dataclasses.replace(worst, ours=np.logical_not(worst.theirs))
    broken = [*rows]
    broken[chosen] = dataclasses.replace(rows[chosen], status="refused", report=None, reason="too many flips")
    findings = Findings((), tuple(broken))
    label = rows[chosen].variant.label
    assert verdict(findings).text.startswith(f"Parity is broken, do not use: {label}")
    page = parity_page(findings, values(tiny_bundle))
    table = page[page.index("<tbody") : page.index("</tbody>")]
    assert table.index('class="badge refused"') < table.index('class="badge passed"')
    assert "1 breaches" in page
    broken[chosen] = dataclasses.replace(rows[chosen], status="refused", worst=flipped)
    first = parity_cases(broken)[0]
    assert first.state == "refused"
    assert f"{worst.theirs.size} of {worst.theirs.size} pixels flip" in first.figures


def test_masks_that_are_shown_are_those_that_were_compared(rows: list[ParityRow]) -> None:
    for row in rows:
        if row.report is not None and row.worst is not None:
            assert int((row.worst.theirs != row.worst.ours).sum()) == row.report.worst.flipped
