"""PyTorch on a GPU as its careful users run it: pinned memory both ways, no wait in between, CUDA events.

Modes: eager, channels_last, autocast to FP16, torch.compile, a CUDA graph for each batch size. In FP32 the
TensorFloat-32 that PyTorch takes by default is off: it keeps 10 bits of the mantissa. On a device that is no
GPU (`gpu-evidence --dry`) the host's clock stands in for events, and calls for graphs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tumorseg_runtime.core.session import InProcess, InputForm, SessionInfo
from tumorseg_runtime.inference.gpu_masks import PARTS

WARM_UP = 3  # calls before a graph is captured


@dataclasses.dataclass(frozen=True)
class Mode:
    """How the network is run. autocast: to float16. graph: captured for each batch size."""

    memory: torch.memory_format = torch.contiguous_format
    compiled: bool = False
    autocast: bool = False
    graph: bool = False


MODES = {
    "pytorch": Mode(),
    "pytorch-channels-last": Mode(memory=torch.channels_last),
    "pytorch-autocast": Mode(memory=torch.channels_last, autocast=True),
    "pytorch-compiled": Mode(compiled=True),
    "pytorch-cuda-graph": Mode(graph=True),
}


@dataclasses.dataclass(frozen=True)
class _Place:
    """Memory for one batch size: pinned, on the GPU, logits there, pinned. compute: fills `logits`."""

    up: torch.Tensor
    there: torch.Tensor
    back: torch.Tensor
    compute: Callable[[], torch.Tensor]


class PyTorchGpuSession(InProcess):
    """The trained network on 'cuda', as a `Session` that knows the parts of its last batch."""

    def __init__(self, model: torch.nn.Module, device: str, name: str = "pytorch") -> None:
        """name: of MODES."""
        self._mode, self._device = MODES[name], torch.device(device)
        model = model.eval().to(self._device).to(memory_format=self._mode.memory)
        self._model: Any = torch.compile(model) if self._mode.compiled else model
        self._places: dict[tuple[int, ...], _Place] = {}
        self.parts: dict[str, int] = {}
        self.input = InputForm()
        versions = {"torch": str(torch.__version__)}
        if self._on_gpu:
            versions |= {"cuda": str(torch.version.cuda), "gpu": torch.cuda.get_device_name(self._device)}
        self.info = SessionInfo(name, device, "fp16" if self._mode.autocast else "fp32", versions)

    def infer(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32 (N, C, H, W) -> float32 logits (N, K, H, W), both in host memory."""
        with self._settings():
            if batch.shape not in self._places:
                self._places[batch.shape] = self._make(batch.shape)
            place = self._places[batch.shape]
            place.up.copy_(torch.from_numpy(batch))
            marks = [self._mark()]
            place.there.copy_(place.up, non_blocking=True)
            marks.append(self._mark())
            logits = place.compute()
            marks.append(self._mark())
            place.back.copy_(logits, non_blocking=True)
            marks.append(self._mark())
            self._wait()
        spans = itertools.starmap(_nanoseconds, itertools.pairwise(marks))
        self.parts = dict(zip(PARTS, spans, strict=True))
        return place.back.numpy().copy()

    @property
    def _on_gpu(self) -> bool:
        return self._device.type == "cuda"

    @contextlib.contextmanager
    def _settings(self) -> Iterator[None]:
        mixed = torch.autocast(self._device.type, torch.float16, enabled=self._mode.autocast)
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False)
        with torch.inference_mode(), exact, mixed:
            yield

    def _make(self, shape: tuple[int, ...]) -> _Place:
        pinned = self._on_gpu
        up = torch.zeros(shape, pin_memory=pinned)
        there = up.to(self._device, memory_format=self._mode.memory)

        def call() -> torch.Tensor:
            return self._model(there).float()  # type: ignore[no-any-return]

        compute = self._captured(call) if self._mode.graph and self._on_gpu else call
        back = torch.empty(compute().shape, pin_memory=pinned)
        return _Place(up, there, back, compute)

    def _captured(self, call: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        beside = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(beside):
            for _ in range(WARM_UP):
                call()
        torch.cuda.current_stream(self._device).wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = call()

        def replay() -> torch.Tensor:
            graph.replay()
            return logits

        return replay

    def _mark(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter_ns()
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _wait(self) -> None:
        if self._on_gpu:
            torch.cuda.synchronize(self._device)


def _nanoseconds(start: Any, end: Any) -> int:
    return int(end - start if isinstance(start, int) else round(start.elapsed_time(end) * 1e6))
