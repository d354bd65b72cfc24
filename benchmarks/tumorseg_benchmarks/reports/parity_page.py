"""The page of a parity check: which artefacts decide as PyTorch does, and where they do worst."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from tumorseg_benchmarks.parity.findings import Findings
from tumorseg_benchmarks.parity.rows import ParityRow
from tumorseg_benchmarks.parity.worst_cases import draw_case
from tumorseg_benchmarks.reports.html_report import WORDS
from tumorseg_benchmarks.reports.parity_report import sections
from tumorseg_benchmarks.reports.report import machine_lines, parity_table, preprocessing_line
from tumorseg_benchmarks.variants.variants import NOT_EXPORTED
from tumorseg_train.report.case_view import PageCase
from tumorseg_train.report.page import PASSED, REFUSED, UNVERIFIED, Verdict, badge, bullets, page, table

ORDER = (REFUSED, PASSED, UNVERIFIED)
CASES = 40  # images in the viewer
VERDICT = 3  # column of `parity_table`


def parity_page(findings: Findings, values: dict[str, Any]) -> str:
    """values: those of parity.json."""
    rows = sorted(findings.rows, key=lambda row: ORDER.index(row.status))
    folded = [(f"{len(findings.breaches)} breaches", bullets(findings.breaches))] if findings.breaches else []
    for each in sections(findings):
        below = table(each.table.header, each.table.rows) if each.table else Markup()
        folded.append((each.title, bullets([line.strip() for line in each.lines]) + below))
    folded.append(
        ("What was compared on what", bullets([*machine_lines(values, False)[:-1], preprocessing_line(rows)]))
    )
    golden = "" if values["run"] else " Only golden images were compared, with the logits of the export."
    return page(
        f"Parity of {values['bundle']['name']}",
        verdict(findings),
        artefact_table(rows),
        cases=parity_cases(rows),
        words=WORDS,
        folded=folded,
        lead="Each artefact against PyTorch, from a file's bytes to its mask; figures are those of the worst "
        f"image.{golden}",
    )


def verdict(findings: Findings) -> Verdict:
    """Red for any breach; what could not be run here is counted."""
    by_state = {
        state: list(dict.fromkeys(row.variant.label for row in findings.rows if row.status == state))
        for state in ORDER
    }
    left = len(set(by_state[UNVERIFIED]) - set(by_state[PASSED]) - set(by_state[REFUSED]))
    unverified = f"; {left} more could not be run here" if left else ""
    if findings.breaches:
        named = ", ".join(by_state[REFUSED]) or "the device folder or the preprocessing"
        return Verdict(REFUSED, f"Parity is broken, do not use: {named}{unverified}.")
    return Verdict(PASSED, f"All {len(by_state[PASSED])} that run here decide as PyTorch does{unverified}.")


def artefact_table(rows: Sequence[ParityRow]) -> Markup:
    """`parity_table` with its verdicts in colours, and what could not run in a line for each reason: the one
    table of the page."""
    found = parity_table(rows)
    unverified: dict[str, list[str]] = {}
    cells = []
    for row in found.rows:
        if row[VERDICT] == UNVERIFIED:
            reason = "not in the bundle" if row[-1].startswith(NOT_EXPORTED) else row[-1]
            unverified.setdefault(reason, []).append(row[0])
        else:
            cells.append((*row[:VERDICT], badge(row[VERDICT]), *row[VERDICT + 1 :]))
    dashes = ["-"] * (len(found.header) - VERDICT - 2)
    for reason, names in unverified.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        cells.append((names[0] + more, "all", "-", badge(UNVERIFIED), *dashes, reason))
    return table(found.header, cells, label="Artefacts", cards=True)


def parity_cases(rows: Sequence[ParityRow]) -> list[PageCase]:
    """The worst image of each row, refused and most flipped first; where nothing flips, each image once."""
    chosen, seen = [], set()
    for row in sorted(rows, key=lambda row: (row.status != REFUSED, -_flips(row))):
        if row.worst is None or row.report is None:
            continue
        name = row.report.worst.image
        if row.status == REFUSED or _flips(row) or name not in seen:
            chosen.append(row)
        seen.add(name)
    return [_case(row) for row in chosen[:CASES]]


def _flips(row: ParityRow) -> int:
    return 0 if row.worst is None else int((row.worst.theirs != row.worst.ours).sum())


def _case(row: ParityRow) -> PageCase:
    assert row.worst is not None
    assert row.report is not None
    worst = row.report.worst
    said = (
        f"{row.variant.label}, batch {row.batch}: {_flips(row)} of {row.worst.ours.size} pixels flip, "
        f"largest logit error {worst.max_error:.2g}, Dice between the masks {worst.dice:.4f}"
    )
    drawn = (row.worst.pixels, row.worst.theirs, row.worst.ours)
    return draw_case(*drawn, f"{row.images}: {worst.image}", said, row.status)
