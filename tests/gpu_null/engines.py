"""Programs with a TensorRT session on the null GPU: real cuda-bindings, the stand-in for TensorRT."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fakes.tensorrt import MAGIC, FakeTensorRt
from gpu_null.null import Null
from tumorseg_runtime.backends import tensorrt
from tumorseg_runtime.bundle.bundle import Artefact, Bundle
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.device.cuda import Gpu, open_gpu
from tumorseg_runtime.device.engines import Engine, EngineKey, Profile
from tumorseg_runtime.processing.preprocess_cuda import open_preprocessor

CONTRACT = Contract(height=64, width=96)
SHAPE = (3, 64, 96)
PROFILE = Profile(1, 2, 4)


class Tensor:
    """float32 in device memory, `offset` bytes behind the beginning of its block."""

    def __init__(self, gpu: Gpu, batch: npt.NDArray[np.float32], offset: int) -> None:
        with gpu.current():
            self.memory = gpu.device_memory(batch.nbytes + offset)
            gpu.upload(self.memory.pointer + offset, batch.ctypes.data, batch.nbytes)
            gpu.synchronise()
        self.shape, self.dtype = batch.shape, batch.dtype
        self.__cuda_array_interface__ = {
            "version": 3, "shape": batch.shape, "typestr": "<f4", "strides": None, "stream": None,
            "data": (self.memory.pointer + offset, True),
        }  # fmt: skip


def open_stand_in(
    folder: Path,
    rtx: bool = False,
    form: str = tensorrt.PLAIN,
    profile: Profile = PROFILE,
    ordinal: int = 0,
) -> tuple[FakeTensorRt, tensorrt.TensorRtSession]:
    """A session on an 'engine' whose logit is the channels' mean; one of a deploy form decides."""
    trt = FakeTensorRt(Null(), rtx=rtx, size=SHAPE[1:])
    tensorrt.load_tool = lambda tool: trt  # type: ignore[assignment]
    (folder / "model.onnx").write_bytes(b"graph")
    masks, planes = form != tensorrt.PLAIN, 1 if form == tensorrt.GRAY else 3
    graph = hashlib.sha256(b"graph").hexdigest()
    key = EngineKey(graph, None, "fp32", trt.__name__, trt.__version__, (89,), None, profile, None)
    shapes = [(size, planes, *SHAPE[1:]) for size in dataclasses.astuple(profile)]
    facts = [trt.__version__, planes, 1, SHAPE[1:], 1.0, [shapes], masks]
    path = folder / "engine"
    path.write_bytes(MAGIC + json.dumps(facts).encode())
    artefact = Artefact("model.onnx", form, "fp32", None, {}, ())
    bundle = Bundle(folder, "small", CONTRACT, (artefact,), (), {}, {}, {}, {})
    return trt, tensorrt.open_engine(
        Engine(path, key, path.read_bytes()), bundle, open_gpu(ordinal), folder / "device", form
    )


def serve() -> dict[str, Any]:
    """Batches from the host, from our preprocessor, and misaligned: are they right, and what do they cost?"""
    with tempfile.TemporaryDirectory() as folder:
        _, session = open_stand_in(Path(folder), rtx=False)
    null, random = Null(), np.random.default_rng(0)
    batch = random.standard_normal((3, *SHAPE), np.float32)
    tensor = open_preprocessor(CONTRACT)([random.integers(0, 256, (50, 70, 3), np.uint8)] * 2)
    inputs = {
        "host": (batch, batch),
        "preprocessed": (tensor, tensor.numpy()),
        "misaligned": (Tensor(open_gpu(), batch, 4), batch),
    }
    seen: dict[str, Any] = {}
    for name, (given, values) in inputs.items():
        session.infer(given)
        null.reset()
        right = np.array_equal(session.infer(given), values.mean(axis=1, keepdims=True))
        seen[name] = (right, null.counts(), null.trace())
    session.close()
    return seen


def open_twice(rtx: bool) -> list[list[tuple[Any, ...]]]:
    """What TensorRT-RTX compiled at first use, and what after the next start."""
    batch = np.zeros((2, *SHAPE), np.float32)
    said = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            trt, session = open_stand_in(Path(folder), rtx)
            for size in (1, 2, 1):
                session.infer(batch[:size])
            session.close()
            said.append([call for call in trt.calls if call[0] == "compiled"])
    return said
