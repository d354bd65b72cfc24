from __future__ import annotations

import numpy as np
import torch

from tumorseg_benchmarks.variants.machine import set_threads
from tumorseg_benchmarks.variants.pytorch import PyTorchSession


class Network(torch.nn.Module):
    """One convolution and a BatchNorm, which tells training from evaluation; notes what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Conv2d(3, 1, 3, padding=1), torch.nn.BatchNorm2d(1))
        self.seen: list[tuple[torch.dtype, bool, bool]] = []

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.seen.append((batch.dtype, torch.is_inference_mode_enabled(), torch.backends.cudnn.allow_tf32))
        result: torch.Tensor = self.layers(batch)
        return result


def test_runs_in_evaluation_mode_without_gradients_and_without_tensorfloat() -> None:
    network = Network().train()
    batch = np.random.default_rng(0).normal(size=(2, 3, 8, 12)).astype(np.float32)
    session = PyTorchSession(network, "cpu")
    logits = session.infer(batch)
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(batch)).numpy()
    np.testing.assert_array_equal(logits, expected)
    assert logits.dtype == np.float32
    assert network.seen[0] == (torch.float32, True, False)
    assert (session.info.backend, session.info.device, session.info.precision) == ("pytorch", "cpu", "fp32")
    assert session.info.versions == {"torch": torch.__version__}


def test_a_batch_is_as_its_images(tiny_run: object) -> None:
    from tumorseg_train.networks.run import Run

    assert isinstance(tiny_run, Run)
    session = PyTorchSession(tiny_run.model(), "cpu")
    batch = np.random.default_rng(1).normal(size=(2, 3, 64, 64)).astype(np.float32)
    alone = np.concatenate([session.infer(batch[:1]), session.infer(batch[1:])])
    np.testing.assert_allclose(session.infer(batch), alone, rtol=0, atol=1e-4)


def test_set_threads() -> None:
    before = torch.get_num_threads()
    try:
        set_threads(1, torch_too=True)
        assert torch.get_num_threads() == 1
    finally:
        set_threads(before, torch_too=True)
