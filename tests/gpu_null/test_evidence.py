"""The stage `kernel` of the evidence on the null GPU, through the real cuda-bindings and NVRTC."""

from __future__ import annotations

import importlib.util

import pytest

from gpu_null.evidence import kernel_stage, providers_stage
from gpu_null.floor import Floor

pytestmark = [pytest.mark.slow, pytest.mark.process]


@pytest.mark.skipif(importlib.util.find_spec("cuda") is None, reason="cuda-bindings is not installed")
def test_the_kernel_stage_finds_every_bit_right_and_breaks_no_rule(driver: Floor) -> None:
    found = driver.call(kernel_stage).value
    assert (found["status"], found["unverified"]) == ("dry run", [])
    assert all(check["passed"] for check in found["checks"]), found["checks"]
    assert len(found["checks"]) == 10


def test_the_onnxruntime_stage_refuses_a_gpu_that_computes_nothing(toolkit: Floor) -> None:
    """Every network opens, is placed on CUDA and runs there; each is refused for what it decides."""
    found = toolkit.call(providers_stage).value
    assert found["status"] == "refused"
    assert (found["gpu"]["name"], found["trace"]) == ("Null GPU 0", "")
    assert len(found["checks"]) >= 6
    for check in found["checks"]:
        assert not check["passed"], check
        assert "expected" in check["detail"], check
