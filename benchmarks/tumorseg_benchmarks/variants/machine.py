"""The machine, as far as a reader needs it to judge a figure."""

from __future__ import annotations

import ctypes
import datetime
import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

from tumorseg_runtime.device.driver import why_no_driver

PACKAGES = (
    "tumorseg", "numpy", "opencv-python-headless", "onnxruntime", "onnxruntime-gpu", "torch",
    "segmentation-models-pytorch",
)  # fmt: skip


def usable_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_average() -> tuple[float, float, float]:
    """Mean number of runnable processes over the last 1, 5 and 15 minutes."""
    return os.getloadavg()


def machine_facts() -> dict[str, Any]:
    """CPU, memory, GPU, system, versions and date; `gpu` is the reason where no driver answers."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": cpu_model(Path("/proc/cpuinfo")),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "memory_gib": round(memory, 1),
        "gpu": why_no_driver() or gpu_name(ctypes.CDLL("libcuda.so.1")),
        "system": platform.platform(),
        "python": sys.version.split()[0],
        "packages": {name: version for name in PACKAGES if (version := package_version(name))},
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def cpu_model(cpuinfo: Path) -> str:
    """Name of the CPU from Linux's /proc/cpuinfo; boards that give none there are named by the kernel."""
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model", "Hardware"):
                return value.strip()
    return platform.processor() or platform.machine()


def gpu_name(driver: ctypes.CDLL) -> str:
    """Name of the first GPU and the CUDA version of its driver, through a libcuda that cuInit accepted."""
    name, device, version = ctypes.create_string_buffer(256), ctypes.c_int(), ctypes.c_int()
    statuses = (
        driver.cuDeviceGet(ctypes.byref(device), 0),
        driver.cuDeviceGetName(name, len(name), device),
        driver.cuDriverGetVersion(ctypes.byref(version)),
    )
    if any(statuses):
        return f"unnamed GPU (the driver returned {statuses})"
    major, minor = version.value // 1000, version.value % 1000 // 10
    return f"{name.value.decode(errors='replace')}, driver for CUDA {major}.{minor}"


def package_version(name: str) -> str | None:
    """Version of an installed distribution, None where it is not installed; imports nothing."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def set_threads(count: int, *, torch_too: bool) -> None:
    """CPU threads of OpenCV and PyTorch in this process; the backends are told when they are opened."""
    import cv2

    cv2.setNumThreads(count)
    if torch_too:
        import torch

        torch.set_num_threads(count)
