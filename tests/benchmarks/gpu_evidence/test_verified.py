"""A user's bundle as evidence: passed, refused and unverified are three things."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tumorseg_benchmarks.gpu_evidence.stage import Findings
from tumorseg_benchmarks.gpu_evidence.verified import note_verified
from tumorseg_runtime.bundle.bundle import Bundle


def test_a_bundle_with_a_broken_seal_is_no_evidence(tiny_bundle: Bundle, tmp_path: Path) -> None:
    root = Path(shutil.copytree(tiny_bundle.root, tmp_path / "copy"))
    (root / "MODEL_CARD.md").write_text("another card")
    found = Findings(lambda line: None)
    note_verified(root, "onnxruntime", "cpu", found)
    seals = [check for check in found.checks if check.name == "copy: seal"]
    assert seals
    assert not any(check.passed for check in seals)
    assert "MODEL_CARD.md" in seals[0].detail


@pytest.mark.usefixtures("few_conformance_files")
def test_what_runs_passes_and_what_cannot_run_is_unverified(tiny_bundle: Bundle) -> None:
    found = Findings(lambda line: None)
    note_verified(tiny_bundle.root, "onnxruntime", None, found)
    assert [check.passed for check in found.checks] == [True, True]  # FP32 and FP16 on the CPU
    assert all("cpu" in check.name for check in found.checks)
    assert found.unverified
    assert all("cuda" in line or "tensorrt" in line for line in found.unverified)
