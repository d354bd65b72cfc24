"""The stages, in one list. Their modules are imported by the process that runs them, and by no other."""

from __future__ import annotations

import dataclasses
import importlib
from typing import cast

from tumorseg_benchmarks.gpu_evidence.stage import NotPossibleError, Run


@dataclasses.dataclass(frozen=True)
class Stage:
    """module: in this package, with a function `run(options, findings)`. needs: for people."""

    module: str
    needs: str

    def load(self) -> Run:
        """Import the module; raises NotPossibleError where that wants a package that is not installed."""
        try:
            return cast(Run, importlib.import_module(f"{__package__}.{self.module}").run)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("tumorseg"):
                raise  # a fault of the project
            raise NotPossibleError(f"not installed: {error.name}") from error


STAGES = {
    "kernel": Stage("kernel", "an NVIDIA driver, cuda-bindings, NVRTC"),
    "torch": Stage("pytorch", "torch with CUDA"),
    "onnxruntime": Stage(
        "providers", "an NVIDIA driver, onnxruntime-gpu with CUDA and cuDNN, cuda-bindings, NVRTC"
    ),
    "tensorrt": Stage("tensorrt_device", "an NVIDIA driver, TensorRT, cuda-bindings, NVRTC"),
    "rtx": Stage(
        "tensorrt_rtx", "TensorRT-RTX; to run what it builds an RTX card or A100, cuda-bindings, NVRTC"
    ),
    "bench": Stage("benchmark", "torch with CUDA"),
    "train": Stage("training", "torch with CUDA; for the whole of tumorseg train its extra"),
}
