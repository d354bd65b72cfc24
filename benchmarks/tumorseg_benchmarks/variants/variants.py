"""What can be compared: every form of the network under everything that may run it.

The list is the same on every machine and for every bundle. What was not exported, or cannot run here, is
left out of the tables and named in one line for each reason (`sort_out`). What should run and does not is a
row, with the reason in place of a number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from tumorseg_runtime.backends import BACKENDS
from tumorseg_runtime.core.session import LOGITS, InputForm

PYTORCH = "pytorch"
PYTORCH_BASELINES = (
    "pytorch-channels-last", "pytorch-compiled", "pytorch-autocast", "pytorch-cuda-graph",
)  # fmt: skip
STOCK = "stock"  # the format of a plain export, which a stock runtime opens (`third_party_baselines`)
BUILT = "engine"  # the format of what `tumorseg build` leaves in the device folder
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
    def formats(self) -> tuple[str, ...]:
        """Formats of the bundle's artefacts that serve it; of several the first that was exported."""
        spec = BACKENDS.get(self.engine)
        return spec.formats if spec and self.format in spec.formats else (self.format,)

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


def variant_of(backend: str, device: str, precision: str) -> Variant:
    """What the runtime's backend makes of the bundle's artefact."""
    spec = BACKENDS[backend]
    return Variant(spec.label_of(device, precision), spec.formats[0], backend, device, precision)


def _served(*devices: str) -> Iterator[Variant]:
    """All that backends open from a bundle on these devices; what is built for one GPU is listed by hand."""
    for name, spec in BACKENDS.items():
        if spec.output != LOGITS or spec.device_folder:
            continue
        for device in devices:
            if device in spec.devices:
                yield from (variant_of(name, device, precision) for precision in spec.precisions)


VARIANTS = (
    Variant("PyTorch eager", "module", PYTORCH, "cpu", "fp32"),
    *_served("cpu"),
    Variant("PyTorch eager CUDA", "module", PYTORCH, "cuda", "fp32"),
    *_served("cuda", "tensorrt"),
    Variant("TensorRT-RTX engine FP16, of the bundle", "tensorrt-rtx", "tensorrt", "cuda", "fp16"),
    Variant("TensorRT engine FP32, of this device", BUILT, "tensorrt", "cuda", "fp32"),
    Variant("TensorRT engine FP16, of this device", BUILT, "tensorrt", "cuda", "fp16"),
)
