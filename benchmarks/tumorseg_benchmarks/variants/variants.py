"""What can be compared: every form of the network under everything that may run it.

The list is the same on every machine and for every bundle. What was not exported, or cannot run here, is
left out of the tables and named in one line for each reason (`sort_out`). What should run and does not is a
row, with the reason in place of a number.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tumorseg_runtime.core.session import InputForm

if TYPE_CHECKING:
    pass

PYTORCH = "pytorch"
PYTORCH_BASELINES = ("pytorch-channels-last", "pytorch-compiled")
STOCK = "stock"  # the format of a plain export, which a stock runtime opens (`third_party_baselines`)
BUILT = "engine"  # the format of what `tumorseg build` leaves in the device folder
STAND_IN = {"mnn-exact": "mnn"}  # format -> the one that its backend opens where the first was not exported
NOT_EXPORTED = "not exported"
FORM = InputForm()  # float32 NCHW: what the preprocessor makes


@dataclasses.dataclass(frozen=True)
class Variant:
    """One form of the network under one engine and device.

    label: for people. format: of the bundle's artefact, 'module' for PyTorch, 'engine' for one that was built
        on this device.
    engine: 'pytorch' or a backend of the runtime. device: as that backend names it.
    precision: 'fp32' or 'fp16'.
    """

    label: str
    format: str
    engine: str
    device: str
    precision: str

    @property
    def name(self) -> str:
        """Key in JSON, for example 'onnx-fp16-onnxruntime-cpu'."""
        return "-".join((self.format, self.precision, self.engine, self.device))

    @property
    def group(self) -> str:
        """'cpu' or 'gpu': only variants of one group share rounds and are set against each other.

        A GPU that waits seconds for a CPU's turn drops its clocks, and would be timed cold.
        """
        return "cpu" if self.device == "cpu" else "gpu"

    @property
    def is_baseline(self) -> bool:
        """True for what is not of this project: it is timed beside it and never ranked."""
        return self.format == STOCK or self.engine in PYTORCH_BASELINES

    @property
    def needs_run(self) -> bool:
        """True where it is made from the run, and not from a file of the bundle."""
        return self.is_baseline or self.engine == PYTORCH


VARIANTS = (
    Variant("PyTorch eager", "module", PYTORCH, "cpu", "fp32"),
    Variant("ONNX FP32, ONNX Runtime CPU", "onnx", "onnxruntime", "cpu", "fp32"),
    Variant("ONNX FP16, ONNX Runtime CPU", "onnx", "onnxruntime", "cpu", "fp16"),
    Variant("ncnn FP32, CPU", "ncnn", "ncnn", "cpu", "fp32"),
    Variant("MNN FP32, CPU", "mnn", "mnn", "cpu", "fp32"),
    Variant("MNN FP32 exact, CPU", "mnn-exact", "mnn-exact", "cpu", "fp32"),
    Variant("OpenVINO FP32, CPU", "openvino", "openvino", "cpu", "fp32"),
    Variant("OpenVINO BF16, CPU", "openvino", "openvino", "cpu", "bf16"),
    Variant("PyTorch eager CUDA", "module", PYTORCH, "cuda", "fp32"),
    Variant("ONNX FP32, ONNX Runtime CUDA", "onnx", "onnxruntime", "cuda", "fp32"),
    Variant("ONNX FP16, ONNX Runtime CUDA", "onnx", "onnxruntime", "cuda", "fp16"),
    Variant("ONNX FP32, ONNX Runtime TensorRT", "onnx", "onnxruntime", "tensorrt", "fp32"),
    Variant("ONNX FP16, ONNX Runtime TensorRT", "onnx", "onnxruntime", "tensorrt", "fp16"),
    Variant("TensorRT-RTX engine FP16, of the bundle", "tensorrt-rtx", "tensorrt", "cuda", "fp16"),
    Variant("TensorRT engine FP32, of this device", BUILT, "tensorrt", "cuda", "fp32"),
    Variant("TensorRT engine FP16, of this device", BUILT, "tensorrt", "cuda", "fp16"),
)
