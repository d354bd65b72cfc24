"""Bare ONNX Runtime: what an inference costs without this project around it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.bundle.bundle import Bundle

FloatArray = npt.NDArray[np.float32]


class RawOnnxRuntime:
    """The bundle's FP32 graph under ONNX Runtime's CPU provider, as its own documentation opens it."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        path = str(bundle.root / bundle.artefact("onnx", "fp32").file)
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def run(self, batch: FloatArray) -> FloatArray:
        """float32 (N, C, H, W) -> float32 logits (N, K, H, W)."""
        logits: FloatArray = self._session.run(None, {self._input: batch})[0]
        return logits
