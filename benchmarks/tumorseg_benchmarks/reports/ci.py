"""What a CI system reads: JUnit XML, and GitHub's annotations."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from tumorseg_benchmarks.parity.findings import Findings
from tumorseg_benchmarks.parity.preprocess_paths import REFUSED, UNVERIFIED
from tumorseg_benchmarks.parity.rows import ParityRow

SUITE = "tumorseg parity"
# What XML 1.0 cannot hold.
_UNFIT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_junit(findings: Findings) -> str:
    """JUnit XML: a test case for each line that refuses the device folder, per golden vector and path, and
    per artefact, set of images and batch size.

    What could not be run is skipped, with the reason.
    """
    suite = ElementTree.Element("testsuite", name=SUITE)
    for line in findings.folder_problems:
        _case(suite, "device folder", line.partition(": ")[0], REFUSED, [line])
    for check in findings.vectors:
        _case(suite, f"preprocessing.{check.path}", check.vector, check.status, [check.reason])
    for row in findings.rows:
        lines = list(row.breaches) or [row.reason]
        _case(suite, row.variant.name, _set_of(row), row.status, lines)
    cases = list(suite)
    suite.set("tests", str(len(cases)))
    suite.set("failures", str(sum(case.find("failure") is not None for case in cases)))
    suite.set("skipped", str(sum(case.find("skipped") is not None for case in cases)))
    suite.set("errors", "0")
    root = ElementTree.Element("testsuites", name=SUITE)
    root.append(suite)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _set_of(row: ParityRow) -> str:
    return row.images if row.batch is None else f"{row.images} images, batch {row.batch}"


def _case(suite: ElementTree.Element, group: str, name: str, status: str, lines: list[str]) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname=_fit(group), name=_fit(name))
    if status == REFUSED:
        failure = ElementTree.SubElement(case, "failure", message=_fit(lines[0]))
        failure.text = _fit("\n".join(lines))
    elif status == UNVERIFIED:
        ElementTree.SubElement(case, "skipped", message=_fit(lines[0]))


def _fit(text: str) -> str:
    return _UNFIT.sub("\ufffd", text)


def to_annotations(findings: Findings) -> list[str]:
    """A line `::error title=...::...` for each breach, as GitHub Actions reads them from the output."""
    return [f"::error title={SUITE}::{_escaped(line)}" for line in findings.breaches]


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
