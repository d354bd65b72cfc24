"""The kinds of machine that `tumorseg deploy --for` names: what they open, and whether this is one."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable
from pathlib import Path

from tumorseg_export.targets.registry import TARGETS
from tumorseg_runtime.device.driver import gpu_facts, why_no_driver

GPU = ("cuda", "tensorrt")
TEGRA = Path("/etc/nv_tegra_release")  # JetPack's own mark


@dataclasses.dataclass(frozen=True)
class Place:
    """targets: of export, whose artefacts such a machine opens. devices: of its variants
    (`tumorseg_benchmarks.variants.variants`). why_not: None on such a machine, else the reason in short."""

    targets: tuple[str, ...]
    devices: tuple[str, ...]
    why_not: Callable[[], str | None]


def _why_not_rtx() -> str | None:
    gpu = gpu_facts()
    if gpu is None:
        return why_no_driver()
    return None if "RTX" in gpu.name else f"the GPU is {gpu.name}, no RTX"


def _why_not_jetson() -> str | None:
    if TEGRA.is_file() or "tegra" in platform.release():
        return why_no_driver()
    return "this is no Jetson"


PLACES = {
    "here": Place(tuple(TARGETS), ("cpu", *GPU), lambda: None),
    "cpu": Place(tuple(name for name in TARGETS if name != "tensorrt-rtx"), ("cpu",), lambda: None),
    "jetson": Place(("onnx", "onnx-fp16"), GPU, _why_not_jetson),
    "rtx": Place(("onnx", "onnx-fp16", "tensorrt-rtx"), GPU, _why_not_rtx),
    "cuda": Place(("onnx", "onnx-fp16"), GPU, why_no_driver),
}
