"""What a GPU can do, measured with PyTorch: matrix products in FP32 (without TF32) and FP16, and a copy."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tumorseg_benchmarks.latency.roofline import COPY_BYTES, REPEATS, Peak

if TYPE_CHECKING:
    import torch

SIDES = (2048, 4096, 8192)  # of the matrix products
MOST_BYTES_SHARE = 0.25  # of the free memory, that a product may take


def measure_gpu_peaks(
    device: str = "cuda", sides: tuple[int, ...] = SIDES, copy_bytes: int = 4 * COPY_BYTES
) -> list[Peak]:
    """One for each precision; [] where torch sees no such device.

    device: 'cpu' stands in for a GPU in a dry run.
    """
    import torch

    where = torch.device(device)
    if where.type == "cuda" and not torch.cuda.is_available():
        return []
    torch.backends.cuda.matmul.allow_tf32 = False
    bandwidth = _copy_rate(copy_bytes, where)
    peaks = []
    for precision, dtype in (("fp32", torch.float32), ("fp16", torch.float16)):
        products: dict[str, float] = {}
        for side in sides:
            if 3 * side**2 * dtype.itemsize > MOST_BYTES_SHARE * _free(where):
                continue
            a, b = (torch.rand(side, side, device=where).to(dtype) for _ in range(2))
            out = torch.empty_like(a)
            seconds = _quickest(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), where)  # type: ignore[misc]
            products[f"PyTorch {precision} {side}x{side}"] = 2 * side**3 / seconds
        if products:
            best = max(products, key=lambda name: products[name])
            peaks.append(Peak(products[best], bandwidth, best, 0, where.type, precision))
    return peaks


def _copy_rate(nbytes: int, where: torch.device) -> float:
    import torch

    source = torch.ones(nbytes // 4, device=where)
    target = torch.empty_like(source)
    return 2 * nbytes / _quickest(lambda: target.copy_(source), where)


def _free(where: torch.device) -> float:
    import torch

    return float(torch.cuda.mem_get_info(where)[0]) if where.type == "cuda" else float("inf")


def _quickest(work: Callable[[], object], where: torch.device) -> float:
    """Seconds by CUDA events; by the host's clock where the device is no GPU."""
    import torch

    work()
    if where.type != "cuda":
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return min(times)
    marks: list[Any] = [torch.cuda.Event(enable_timing=True) for _ in range(REPEATS + 1)]  # type: ignore[no-untyped-call]
    marks[0].record()
    for mark in marks[1:]:
        work()
        mark.record()
    torch.cuda.synchronize(where)
    return float(min(one.elapsed_time(other) for one, other in itertools.pairwise(marks))) / 1e3
