"""The stage `kernel` of the evidence on the null GPU, through the real cuda-bindings and NVRTC."""

from __future__ import annotations

import importlib.util

import pytest

from gpu_null.evidence import kernel_stage
from gpu_null.floor import Floor

pytestmark = [pytest.mark.slow, pytest.mark.process]


@pytest.mark.skipif(importlib.util.find_spec("cuda") is None, reason="cuda-bindings is not installed")
def test_the_kernel_stage_finds_every_bit_right_and_breaks_no_rule(driver: Floor) -> None:
    found = driver.call(kernel_stage).value
    assert (found["status"], found["unverified"]) == ("dry run", [])
    assert all(check["passed"] for check in found["checks"]), found["checks"]
    assert len(found["checks"]) == 8
