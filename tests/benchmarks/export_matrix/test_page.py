"""The page of the export matrix, and the command that goes on where it was ended."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tumorseg_benchmarks.export_matrix import __main__ as command
from tumorseg_benchmarks.export_matrix.cases import COVER, Case, whole
from tumorseg_benchmarks.export_matrix.checks import CHECKS
from tumorseg_benchmarks.export_matrix.page import page
from tumorseg_runtime.core.errors import CheckFailedError

REFUSED = (
    "{0} cannot be built on encoder 'mit_b0' ({1}): choose an encoder that smp offers for {0}, such as b"
)


def record(case: Case, status: str, reason: str = "", **checks: str) -> dict[str, Any]:
    made = {} if status == "refused" else {**dict.fromkeys(CHECKS, ""), **checks}
    return {"case": vars(case), "status": status, "reason": reason, "checks": made, "seconds": 30.0}


def test_page_counts_and_gives_one_reason_once() -> None:
    lint = "not made: polygraphy is not installed"
    text = page(
        [
            record(Case("unet", "resnet18", 1, 3), "passed", lint=lint),
            record(Case("unet", "resnet18", 3, 1), "failed", "openvino: a|b", openvino="a|b", lint=lint),
            record(Case("dpt", "mit_b0", 3, 1), "refused", REFUSED.format("dpt", "it has (no) ViT")),
            record(Case("dpt", "mit_b0", 3, 3), "refused", REFUSED.format("dpt", "it has (no) ViT")),
            record(Case("linknet", "mit_b0", 3, 3), "refused", REFUSED.format("linknet", "it has (no) ViT")),
        ]
    )
    assert "5 of 336 cases were run: 1 passed, 3 refused, 1 failed, in 2 minutes" in text
    assert "| unet | 1 passed, 1 failed | not run |" in text
    assert "| mit_b0 | dpt, linknet | it has (no) ViT |" in text
    assert "| resnet18 | unet | openvino: a\\|b |" in text
    assert "openvino 1, lint 0." in text
    assert text.count("lint: not made: polygraphy is not installed.") == 1


def test_command_goes_on_where_it_was_and_fails_with_a_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Case] = []

    def here(cases: Sequence[Case], out: Path, workers: int) -> Iterator[dict[str, Any]]:
        for case in cases:
            ran.append(case)
            yield record(case, "failed" if case == COVER[1] else "passed", "checker: it broke")

    monkeypatch.setattr(command, "ran", here)
    arguments = ["--cover", "--out", str(tmp_path)]
    done = CliRunner().invoke(command.matrix, arguments)
    assert isinstance(done.exception, CheckFailedError)
    assert f"1 cases failed: {COVER[1].name}" in str(done.exception)
    assert "12 of 336 cases were run: 11 passed" in done.stdout
    assert f"2/12 {COVER[1].name} failed: checker: it broke (30 s)" in done.stderr
    assert (tmp_path / "export-matrix.md").read_text() == done.stdout.removesuffix("\n")
    assert json.loads((tmp_path / f"{COVER[0].name}.json").read_text())["status"] == "passed"
    assert ran == list(COVER)
    (tmp_path / f"{COVER[1].name}.json").unlink()
    CliRunner().invoke(command.matrix, arguments)
    assert ran == [*COVER, COVER[1]]
    CliRunner().invoke(command.matrix, [*arguments, "--again"])
    assert len(ran) == 25
    assert whole()[: len(COVER)] == list(COVER)
