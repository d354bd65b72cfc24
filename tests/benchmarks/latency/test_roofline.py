"""Work counted by hand on a tiny graph, and bounds from peaks that are given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from tumorseg_benchmarks.latency import roofline
from tumorseg_benchmarks.latency.roofline import (
    Bound,
    Peak,
    Work,
    count_work,
    measure_peak,
    share_text,
    traffic,
)
from tumorseg_runtime.bundle.bundle import Bundle


def test_traffic_and_operations_of_two_convolutions_counted_by_hand() -> None:
    """(N, 3, 8, 10) -> 4 channels of 3x3 -> Relu -> 2 channels of 1x1."""
    onnx = pytest.importorskip("onnx")
    numpy_helper, helper = pytest.importorskip("onnx.numpy_helper"), onnx.helper
    import numpy as np

    from tumorseg_export.onnx.complexity import count_flops

    weights = [
        numpy_helper.from_array(np.ones(shape, np.float32), name)
        for name, shape in (("w1", (4, 3, 3, 3)), ("b1", (4,)), ("w2", (2, 4, 1, 1)))
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", channels, 8, 10])
        for name, channels in (("x", 3), ("y", 2))
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], weights), ir_version=9)
    moved, weight_bytes = traffic(model)
    assert moved == 4 * 80 * (3 + 4 + 4 + 2)  # floats of 8 x 10: in and out of each convolution; no Relu
    assert weight_bytes == 4 * (4 * 27 + 4 + 8)
    assert count_flops(model) == 2 * 80 * (4 * 27 + 2 * 4)


def test_the_longer_of_computing_and_moving_bounds_and_weights_move_once_a_batch() -> None:
    peak = Peak(flops=1e9, bandwidth=1e9, best="", threads=1)
    assert Bound.of(Work(4e6, 1e6, 1e6), peak, 1) == Bound(4.0, "compute")
    assert Bound.of(Work(1e6, 2e6, 3e6), peak, 1) == Bound(5.0, "memory")
    assert Bound.of(Work(1e6, 2e6, 3e6), peak, 4) == Bound(11.0, "memory")
    assert Bound(5.0, "compute").share(10.0) == 0.5
    assert (share_text(0.5), share_text(1.57)) == ("50 %", "157 % effective")


def test_work_of_a_bundle_or_why_it_is_not_counted(tiny_bundle: Bundle) -> None:
    pytest.importorskip("onnx")
    work = count_work(tiny_bundle)
    assert isinstance(work, Work)
    assert min(work.flop, work.moved, work.weights) > 0
    halves = tuple(one for one in tiny_bundle.artefacts if one.precision == "fp16")
    reason = count_work(dataclasses.replace(tiny_bundle, artefacts=halves))
    assert reason == "the bundle has no fp32 onnx artefact to count"


def test_the_best_product_is_the_peak_and_a_copy_reads_and_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is replaced: what was run says how long it took."""
    products: dict[int, dict[str, Callable[[], object]]] = {
        side: {"slow": lambda: None, "quick": lambda: None} for side in (256, 512)
    }
    seconds = {id(products[256]["slow"]): 1.0, id(products[256]["quick"]): 0.5}
    seconds |= {id(products[512]["slow"]): 2.0, id(products[512]["quick"]): 8.0}
    monkeypatch.setattr(roofline, "SIDES", (256, 512))
    monkeypatch.setattr(roofline, "COPY_BYTES", 4096)
    monkeypatch.setattr(roofline, "_products", lambda side, threads: products[side])
    monkeypatch.setattr(roofline, "_quickest", lambda work: seconds.get(id(work), 0.25))
    peak = measure_peak(2)
    assert peak == Peak(2 * 512**3 / 2.0, 2 * 4096 / 0.25, "slow 512x512", 2)


def test_the_products_that_are_timed_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    import numpy as np

    product = roofline._products(32, 1)["ONNX Runtime"]
    a, b = (np.random.default_rng(seed).random((32, 32), np.float32) for seed in (0, 1))
    (found,) = product()  # type: ignore[misc]
    np.testing.assert_allclose(found, a @ b, rtol=1e-5)
