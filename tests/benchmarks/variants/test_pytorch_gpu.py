"""PyTorch's modes for a GPU, on the CPU: what they compute and tell. That they run on a GPU is unverified."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tumorseg_benchmarks.latency.stages import PARTS, PartedSession, ServedSession
from tumorseg_benchmarks.variants.pytorch_gpu import MODES, PyTorchGpuSession
from tumorseg_benchmarks.variants.third_party_baselines import THIRD_PARTY_BASELINES
from tumorseg_benchmarks.variants.variants import PYTORCH_BASELINES, VARIANTS


@pytest.fixture
def network() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 1, 1)).eval()


@pytest.mark.parametrize("mode", [one for one in MODES if one != "pytorch-compiled"])
def test_every_mode_gives_the_networks_logits_and_the_parts_of_its_time(
    network: torch.nn.Module, mode: str
) -> None:
    session = PyTorchGpuSession(network, "cpu", mode)
    assert session.info.precision == ("fp16" if mode == "pytorch-autocast" else "fp32")
    for count in (1, 3, 1):
        batch = np.random.default_rng(count).standard_normal((count, 3, 16, 32), np.float32)
        with torch.inference_mode():
            expected = network(torch.from_numpy(batch)).numpy()
        logits = session.infer(batch)
        assert (logits.dtype, logits.shape) == (np.float32, (count, 1, 16, 32))
        limit = 2e-2 if mode == "pytorch-autocast" else 1e-5
        np.testing.assert_allclose(logits, expected, atol=limit)
        assert tuple(session.parts) == PARTS
        assert all(taken >= 0 for taken in session.parts.values())
    kept = logits.copy()
    session.infer(np.zeros((1, 3, 16, 32), np.float32))
    np.testing.assert_array_equal(logits, kept)  # its memory is not written again
    assert isinstance(session, PartedSession)
    assert not isinstance(session, ServedSession)


def test_every_mode_is_a_row_on_a_gpu() -> None:
    rows = {
        one.engine: one
        for one in (*VARIANTS, *THIRD_PARTY_BASELINES)
        if one.engine in MODES and one.device == "cuda"
    }
    assert set(rows) == set(MODES) == {"pytorch", *PYTORCH_BASELINES}
    assert {name for name, one in rows.items() if one.precision == "fp16"} == {"pytorch-autocast"}
