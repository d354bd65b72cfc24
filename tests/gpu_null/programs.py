"""Functions that run on the null GPU, in a process of their own."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gpu_null.null import Null
from tumorseg_runtime.backends.onnxruntime import open_model
from tumorseg_runtime.backends.onnxruntime_sessions import OnnxRuntimeStream
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError
from tumorseg_runtime.core.session import LOGITS, MASKS, InputForm, SessionInfo
from tumorseg_runtime.device.cuda import Gpu, open_gpu
from tumorseg_runtime.device.driver import gpu_uuid
from tumorseg_runtime.device.graphs import capture
from tumorseg_runtime.processing.preprocess import Preprocessor
from tumorseg_runtime.processing.preprocess_cuda import open_preprocessor


def serve_graphs(paths: list[Path]) -> dict[str, str | dict[str, int]]:
    """Open ONNX files on CUDA as the product does, every node placed there, and run each for one image and
    for two, as they come and as CUDA graphs: what was said by name, or counts of six further batches."""
    said: dict[str, str | dict[str, int]] = {}
    for path in paths:
        try:
            said[path.name] = _serve_graph(path)
        except BackendError as error:
            said[path.name] = str(error)
    return said


def _serve_graph(path: Path) -> dict[str, int]:
    null, gpu = Null(), open_gpu()
    with gpu.current():
        session = open_model(path.read_bytes(), path.name, "cuda", None, stream=gpu.stream)
        (image,), (answer,) = session.get_inputs(), session.get_outputs()
        channels, height, width = image.shape[1:]
        contract = Contract(height, width, classes=tuple(map(str, range(answer.shape[1]))))
        form = InputForm("uint8" if image.type == "tensor(uint8)" else "float32", channels=channels)
        output = MASKS if form.dtype == "uint8" else LOGITS
        info = SessionInfo("onnxruntime", "cuda", "", {})
        on = OnnxRuntimeStream(session, info, form, output, gpu, contract)
        source, target = (
            gpu.device_memory(planes * 2 * 4 * height * width) for planes in (channels, answer.shape[1])
        )
        works = [functools.partial(on.enqueue, n, source.pointer, target.pointer) for n in (1, 2)]
        graphs = []
        for work in works:
            work()
            graphs.append(capture(gpu, work))
        null.reset()
        for index in (0, 1, 0):
            works[index]()
            if graphs[index] is not None:
                gpu.replay(graphs[index])
        counts = null.counts()
        gpu.synchronise()
    return counts


def preprocess(sizes: list[tuple[int, ...]], dtype: str) -> tuple[bool, dict[str, int]]:
    """A batch by the real cuda-bindings and NVRTC: has it the CPU's bits, and what does the next one cost?"""
    contract = Contract(height=64, width=96)
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, size, np.uint8) for size in sizes]
    on_gpu, on_cpu = open_preprocessor(contract, dtype=dtype), Preprocessor(contract)
    tensor = on_gpu(images)
    same = np.array_equal(tensor.numpy(), np.stack([on_cpu(image) for image in images]).astype(dtype))
    null = Null()
    null.reset()
    on_gpu(images, out=tensor)
    return same, null.counts()


class Foreign:
    """Pixels of another library in device memory; `changes` are entries of its interface."""

    def __init__(self, gpu: Gpu, pixels: npt.NDArray[np.uint8], **changes: object) -> None:
        with gpu.current():
            self.memory = gpu.device_memory(pixels.nbytes)
            gpu.upload(self.memory.pointer, pixels.ctypes.data, pixels.nbytes)
            if changes["version"] == 3 and changes["stream"] is None:  # else its reader waits
                gpu.synchronise()
        self.__cuda_array_interface__ = {
            "version": 3, "shape": pixels.shape, "typestr": "|u1", "data": (self.memory.pointer, True),
            "strides": None, "stream": None, **changes,
        }  # fmt: skip


def preprocess_foreign(ordinal: int, version: int, names_stream: bool = False) -> tuple[bool, int]:
    """Preprocess another library's tensor of a device: has it the CPU's bits, and how often was waited?"""
    contract = Contract(height=64, width=96)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70), np.uint8)
    on_gpu = open_preprocessor(contract)
    gpu = open_gpu(ordinal)
    image = Foreign(gpu, pixels, version=version, stream=gpu.stream if names_stream else None)
    null = Null()
    null.reset()
    tensor = on_gpu([image])
    waited = null.counts()["synchronisations"]
    return np.array_equal(tensor.numpy()[0], Preprocessor(contract)(pixels)), waited


def contexts_on_two_devices() -> list[object]:
    """Preprocess on device 1 while a host program has device 0: its context before, and after each step."""
    from cuda.bindings import driver

    _, context = driver.cuDevicePrimaryCtxRetain(0)
    driver.cuCtxSetCurrent(context)
    seen = []
    on_gpu = open_preprocessor(Contract(height=64, width=96), ordinal=1)
    for step in (lambda: None, lambda: on_gpu([np.zeros((9, 9), np.uint8)]).numpy()):
        step()
        seen.append(int(driver.cuCtxGetCurrent()[1]) == int(context))
    return [*seen, on_gpu.gpu.name, gpu_uuid(1)]
