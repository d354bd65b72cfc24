"""How near is a latency to what the machine can do? Work counted from the graph, peaks measured here.

The bound is that of direct convolution: the graph's operations at the best rate that a matrix product
reaches here, or its traffic at the rate of a copy, whichever takes longer. Winograd's convolution needs fewer
multiplications, so a share of the bound may exceed 100 %: it is then *effective*.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from tumorseg_runtime.bundle.bundle import Bundle

if TYPE_CHECKING:
    import onnx

SIDES = (256, 512, 1024, 2048)  # of the matrix products
COPY_BYTES = 256 * 2**20  # far beyond the caches
REPEATS = 7  # the quickest counts: a peak is what is possible
HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclasses.dataclass(frozen=True)
class Work:
    """Of one image. flop: multiply and add counted apart. moved: bytes of float32 that convolutions and
    matrix products read and write, everything else taken as fused into them. weights: bytes, once a batch."""

    flop: float
    moved: float
    weights: float


@dataclasses.dataclass(frozen=True)
class Peak:
    """What this machine reached. flops: per second, of a matrix product; bandwidth: bytes per second, read
    and written by a copy. best: which product it was. threads: of the CPU, 0 for a GPU."""

    flops: float
    bandwidth: float
    best: str
    threads: int
    device: str = "cpu"
    precision: str = "fp32"


@dataclasses.dataclass(frozen=True)
class Bound:
    """ms: least time of a batch by direct convolution. by: 'compute' or 'memory'."""

    ms: float
    by: str

    @classmethod
    def of(cls, work: Work, peak: Peak, batch: int) -> Bound:
        """The longer of computing and moving."""
        compute = work.flop * batch / peak.flops
        halves = 0.5 if peak.precision == "fp16" else 1.0
        memory = halves * (work.moved * batch + work.weights) / peak.bandwidth
        return cls(1000 * max(compute, memory), "compute" if compute >= memory else "memory")

    def share(self, ms: float) -> float:
        """Of the bound that a latency reaches; above 1 it is effective."""
        return self.ms / ms


def share_text(share: float) -> str:
    """'87 %', or '157 % effective'."""
    return f"{100 * share:.0f} %" + (" effective" if share > 1 else "")


def count_work(bundle: Bundle) -> Work | str:
    """Counted from the FP32 ONNX file, or why it cannot be."""
    artefact = next((a for a in bundle.artefacts if (a.format, a.precision) == ("onnx", "fp32")), None)
    if artefact is None:
        return "the bundle has no fp32 onnx artefact to count"
    try:
        import onnx

        from tumorseg_export.onnx.complexity import count_flops
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed (extra export)"
    model = onnx.load(bundle.root / artefact.file)
    moved, weights = traffic(model)
    return Work(float(count_flops(model)), moved, weights)


def traffic(model: onnx.ModelProto) -> tuple[float, float]:
    """Bytes of float32: (activations that heavy nodes read and write for one image, their weights)."""
    import onnx

    single = onnx.ModelProto()
    single.CopyFrom(model)
    for value in (*single.graph.input, *single.graph.output):
        if value.type.tensor_type.shape.dim[0].dim_param:
            value.type.tensor_type.shape.dim[0].dim_value = 1
    del single.graph.value_info[:]
    graph = onnx.shape_inference.infer_shapes(single, data_prop=True).graph
    weights = {tensor.name: math.prod(tensor.dims) for tensor in graph.initializer}
    sizes = {
        value.name: math.prod(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    heavy = [node for node in graph.node if node.op_type in HEAVY]
    names = [name for node in heavy for name in (*node.input, *node.output) if name]
    moved = sum(sizes.get(name, 0) for name in names if name not in weights)
    used = {name for name in names if name in weights}
    return 4.0 * moved, 4.0 * sum(weights[name] for name in used)


def measure_peak(threads: int) -> Peak:
    """The best product of ONNX Runtime's and (where it is loaded) PyTorch's, and the best copy."""
    products: dict[str, float] = {}
    for side in SIDES:
        for name, product in _products(side, threads).items():
            products[f"{name} {side}x{side}"] = 2 * side**3 / _quickest(product)
    best = max(products, key=lambda name: products[name])
    return Peak(products[best], _copy_rate(threads), best, threads)


def _products(side: int, threads: int) -> dict[str, Callable[[], object]]:
    import sys

    import onnxruntime

    a, b = (np.random.default_rng(seed).random((side, side), np.float32) for seed in (0, 1))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(_product_graph(side), options, providers=["CPUExecutionProvider"])
    found: dict[str, Callable[[], object]] = {"ONNX Runtime": lambda: session.run(None, {"a": a, "b": b})}
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() == threads:
        left, right = torch.from_numpy(a), torch.from_numpy(b)
        found["PyTorch"] = lambda: torch.mm(left, right)
    return found


def _product_graph(side: int) -> bytes:
    import onnx

    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [side, side]) for name in "abc"]
    node = onnx.helper.make_node("MatMul", ["a", "b"], ["c"])
    graph = onnx.helper.make_graph([node], "product", ends[:2], ends[2:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def _copy_rate(threads: int) -> float:
    """Bytes per second, read and written, of a copy that all threads share."""
    source, target = (np.ones(COPY_BYTES // 4, np.float32) for _ in range(2))
    pieces = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:

        def copy() -> None:
            list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), pieces))

        return 2 * COPY_BYTES / _quickest(copy)


def _quickest(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
