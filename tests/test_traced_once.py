"""A graph made of the trace of another network is, byte for byte, that of its own."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from traced_once import tracing_each_network_once

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")


class Network(torch.nn.Module):  # type: ignore[misc, name-defined]
    """What the exporter folds by its weights (norms), drops (equal tensors), reads (a constant)."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.first, self.norm = torch.nn.Conv2d(1, 4, 3, padding=1, bias=False), torch.nn.BatchNorm2d(4)
        self.second, self.last = torch.nn.Conv2d(4, 4, 1), torch.nn.Conv2d(4, 1, 1)
        self.linear = torch.nn.Linear(32, 32)
        self.register_buffer("scale", torch.full((32,), scale), persistent=False)

    def forward(self, image: Any) -> Any:
        """float32 (N, 1, 32, 32) -> (N, 1, 32, 32)."""
        return self.last(self.linear(torch.relu(self.second(self.norm(self.first(image)))) * self.scale))


def network(seed: int, scale: float = 1.0, *, fresh: bool = False) -> Any:
    torch.manual_seed(seed)
    made = Network(scale)
    if not fresh:  # running statistics of a fresh norm are equal tensors
        torch.nn.init.normal_(made.norm.running_mean)
        torch.nn.init.uniform_(made.norm.weight)
    return made.eval()


@pytest.mark.slow
def test_the_graph_is_that_of_its_own_trace() -> None:
    from tumorseg_export.onnx.export import to_onnx
    from tumorseg_runtime.core.contract import Contract

    contract, traced = Contract(32, 32, (0.5,), (0.5,)), list[int]()
    networks = [network(1, fresh=True), network(2), network(2, 0.5)]
    export = inspect.unwrap(torch.onnx.export)

    def counted(*arguments: Any, **options: Any) -> Any:
        traced.append(1)
        return export(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", counted)
        with tracing_each_network_once():
            once = [to_onnx(one, contract).SerializeToString(deterministic=True) for one in networks]
    assert len(traced) == 2  # another scale is no weight
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", export)
        own = [to_onnx(one, contract).SerializeToString(deterministic=True) for one in networks]
    assert once == own
    assert len(set(own)) == len(own)
