"""ONNX Runtime's TensorRT provider: can it run, and what does it build.

It counts as available because it was compiled in, whether or not there is a TensorRT. And unless it is told
where to keep its engine and for which batches, it builds one at each opening, and another for each batch.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import json
import re
from pathlib import Path

from tumorseg_runtime.bundle.bundle import Artefact, Bundle
from tumorseg_runtime.core.backend import split_device
from tumorseg_runtime.core.files import make_folder
from tumorseg_runtime.device.trust import PRIVATE, require_trusted

PROVIDER = "libonnxruntime_providers_tensorrt.so"
INPUT = "image"  # the name of the input of every graph that is exported
BATCHES = (1, 4, 8)  # smallest, tuned and largest of the engine
MAJORS = range(8, 16)  # of TensorRT, that are looked for where the right one is missing
PIP_PACKAGE = "tensorrt_libs"  # where NVIDIA's wheels put TensorRT's libraries


@functools.cache
def why_no_tensorrt(capi: Path) -> str | None:
    """None where the TensorRT that the provider was linked with can be loaded, else the reason in short.

    capi: the folder of onnxruntime's libraries.
    """
    provider = capi / PROVIDER
    if not provider.is_file():
        return f"{PROVIDER} is missing: it is part of onnxruntime-gpu"
    linked = re.search(rb"libnvinfer\.so\.(\d+)", provider.read_bytes())
    if linked is None:
        return f"{PROVIDER} names no version of TensorRT"
    major = int(linked[1])
    if _load("libnvinfer", major) and _load("libnvonnxparser", major):
        return None
    others = [str(one) for one in MAJORS if one != major and _load("libnvinfer", one)]
    found = f"here is TensorRT {', '.join(others)}" if others else f"libnvinfer.so.{major} is not here"
    return f"onnxruntime is built for TensorRT {major}, {found}"


def largest_batch(device: str, artefact: Artefact) -> int | None:
    """Of the artefact; through TensorRT at most what its engine is built for."""
    built_for = BATCHES[-1] if split_device(device)[0] == "tensorrt" else None
    sizes = [size for size in (artefact.max_batch, built_for) if size is not None]
    return min(sizes, default=None)


def engine_options(
    device: str,
    artefact: Artefact,
    bundle: Bundle,
    channels: int,
    versions: dict[str, str],
    folder: Path | None,
) -> dict[str, str]:
    """Options of the TensorRT provider, none for another: the batches that its engine is built for, and where
    in the device folder it is kept, by the hash of what decides it. None as the folder keeps nothing."""
    if split_device(device)[0] != "tensorrt":
        return {}
    size = f"{channels}x{bundle.contract.height}x{bundle.contract.width}"
    names = ("trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_profile_max_shapes")
    options = {name: f"{INPUT}:{n}x{size}" for name, n in zip(names, BATCHES, strict=True)}
    if folder is None:
        return options
    decides = [
        bundle.sha256(artefact.file),
        versions,
        tensorrt_version(),
        options,
        device,
    ]
    key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"onnxruntime-{key}"
    make_folder(path, PRIVATE)
    require_trusted(folder)
    require_trusted(path, *path.iterdir())
    for what in ("engine", "timing"):
        options |= {f"trt_{what}_cache_enable": "1", f"trt_{what}_cache_path": str(path)}
    return options


def tensorrt_version() -> int:
    """Version of the TensorRT that `why_no_tensorrt` loaded, as it counts itself (101600 is 10.16.0)."""
    return int(ctypes.CDLL(None).getInferLibVersion())


def _load(name: str, major: int) -> bool:
    """Load a library of TensorRT for the whole process, from the system or from pip's package."""
    file = f"{name}.so.{major}"
    package = importlib.util.find_spec(PIP_PACKAGE)
    folders = package.submodule_search_locations if package else None
    for path in (file, *(str(Path(folder) / file) for folder in folders or ())):
        with contextlib.suppress(OSError):
            ctypes.CDLL(path, ctypes.RTLD_GLOBAL)
            return True
    return False
