"""CUDA graphs: what was queued on a GPU's stream once, to be queued again as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tumorseg_runtime.core.errors import BackendError, GpuLostError
from tumorseg_runtime.device.cuda import Gpu
from tumorseg_runtime.device.memory import Handle

THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may allocate meanwhile
MEMCPY_NODE, HOST_NODE = 1, 3  # CUgraphNodeType
ON_DEVICE = 2  # CU_MEMORYTYPE_DEVICE


def capture(gpu: Gpu, work: Callable[[], None]) -> Handle | None:
    """What `work` queues on the stream of all work, as a graph for `Gpu.replay`; nothing of it is run.

    None where there can be no graph: a library does what CUDA refuses in a capture, or a graph would not do
    the same again, since libraries also bring tables up from memory of the host, which they write anew for
    each run, and give it back by functions of the host. Raises GpuLostError.
    """
    gpu.call("cuStreamBeginCapture", gpu.stream, gpu.driver.CUstreamCaptureMode(THREAD_LOCAL))
    try:
        done = _tried(lambda: work() or True)  # type: ignore[func-returns-value]
    finally:  # whatever happened: nothing else can be queued before
        graph = _tried(lambda: gpu.call("cuStreamEndCapture", gpu.stream))
    if graph is None:
        return None
    try:
        if done is None or any(_is_of_host(gpu, node) for node in _nodes(gpu, graph)):
            return None
        made = _tried(lambda: gpu.call("cuGraphInstantiate", graph, 0))
        return None if made is None else gpu.owned(made, "cuGraphExecDestroy")
    finally:
        gpu.call("cuGraphDestroy", graph)


def _tried(call: Callable[[], Any]) -> Any:
    """What it gives, None where CUDA or a library refuses; raises GpuLostError."""
    try:
        return call()
    except GpuLostError:
        raise
    except BackendError:
        return None


def _nodes(gpu: Gpu, graph: Any) -> Sequence[Any]:
    *_, count = gpu.driver.cuGraphGetNodes(graph, 0)
    return gpu.driver.cuGraphGetNodes(graph, count)[1] if count else ()


def _is_of_host(gpu: Gpu, node: Any) -> bool:  # a function of the host, or a copy from its memory
    kind = int(gpu.call("cuGraphNodeGetType", node))
    if kind != MEMCPY_NODE:
        return kind == HOST_NODE
    return int(gpu.call("cuGraphMemcpyNodeGetParams", node).srcMemoryType) != ON_DEVICE
