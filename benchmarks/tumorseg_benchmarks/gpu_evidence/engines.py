"""What the stages `tensorrt` and `rtx` share: an engine of a network whose every logit is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tumorseg_export.engine.tensorrt_build import BuildOptions, build_engine
from tumorseg_runtime.backends.tensorrt import TensorRtSession, open_engine
from tumorseg_runtime.conformance.network import conformance_bundle, expected_logits
from tumorseg_runtime.core.errors import ParityError
from tumorseg_runtime.device.cuda import Gpu
from tumorseg_runtime.device.engines import Engine, EngineKey, Profile, write_engine
from tumorseg_runtime.processing.preprocess import Preprocessor
from tumorseg_runtime.processing.preprocess_cuda import open_preprocessor

KINDS, PRECISIONS = ("rgb", "gray"), ("fp32", "fp16")
PROFILE = Profile(1, 2, 4)
LIMITS = {"fp32": 1e-5, "fp16": 1e-2}  # of the largest logit


def build(trt: Any, kind: str, precision: str, capabilities: tuple[int, ...]) -> tuple[bytes, EngineKey]:
    """An engine of the conformance network and its key; capabilities: none for the GPU at hand."""
    bundle = conformance_bundle(kind)
    artefact = bundle.artefact("onnx", precision)
    graph = (bundle.root / artefact.file).read_bytes()
    options = BuildOptions(PROFILE, capabilities)
    built = build_engine(trt, graph, bundle.contract, options, lambda line: None, name=artefact.file)
    key = EngineKey(
        onnx_sha256=bundle.files[artefact.file].sha256, bundle_sha256=None, precision=precision,
        tool=trt.__name__, tool_version=str(trt.__version__), capabilities=capabilities, gpu=None,
        profile=PROFILE, workspace_mb=None,
    )  # fmt: skip
    return built.data, key


def check_engine(data: bytes, key: EngineKey, kind: str, gpu: Gpu, folder: Path) -> str:
    """Every batch size, from host and from device memory; raises ParityError where a logit is wrong."""
    path = folder / key.name()
    write_engine(path, data, key)
    session = open_engine(Engine(path, key, data), conformance_bundle(kind), gpu)
    try:
        worst = max(_error(session, kind, count) for count in range(1, PROFILE.largest + 1))
    finally:
        session.close()
    if worst > LIMITS[key.precision]:
        raise ParityError(
            f"a logit is {worst:.2g} of the largest away, expected {LIMITS[key.precision]:g} at most"
        )
    return f"batches of 1 to {PROFILE.largest}, error {worst:.2g} of the largest logit, device memory equal"


def _error(session: TensorRtSession, kind: str, count: int) -> float:
    contract = conformance_bundle(kind).contract
    random = np.random.default_rng(count)
    images = [random.integers(0, 256, (50 + index, 70), np.uint8) for index in range(count)]
    tensors = np.stack([Preprocessor(contract)(image) for image in images])
    expected = np.stack([expected_logits(kind, tensor) for tensor in tensors])
    logits = session.infer(tensors.astype(session.input.dtype))
    if not np.array_equal(
        session.infer(open_preprocessor(contract, dtype=session.input.dtype)(images)), logits
    ):
        raise ParityError(
            "a batch in device memory gives other logits than one of the host, expected the same"
        )
    return float(np.abs(logits - expected).max() / np.abs(expected).max())
