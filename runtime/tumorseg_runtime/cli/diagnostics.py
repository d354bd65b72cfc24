"""What this machine can run, and for each thing missing or wrong, the remedy. Only looks; changes nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2

from tumorseg_runtime.backends import BACKENDS, GPU_EXTRA, why_unavailable
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import BackendError, BundleError
from tumorseg_runtime.device.cache import device_facts, find, read_ranking
from tumorseg_runtime.device.driver import gpus, why_no_driver
from tumorseg_runtime.device.engines import engines_in, read_key, require_machine
from tumorseg_runtime.parity.verify import devices_of
from tumorseg_runtime.processing.preprocess import resize_engine

OK, MISSING, WRONG = "ok", "missing", "wrong"
BACKEND = "backend "  # then name and device: the topic of what can run
# One module, several wheels: the one that was installed last wins, silently.
RIVALS = {
    **{spec.wheels[0]: spec.wheels for spec in BACKENDS.values() if len(spec.wheels) > 1},
    "cv2": (
        "opencv-python-headless",
        "opencv-python",
        "opencv-contrib-python",
        "opencv-contrib-python-headless",
    ),
}
# (backend, device) -> extra of tumorseg that brings it
EXTRAS = {
    (name, device): extra
    for name, spec in BACKENDS.items()
    for device, extra in spec.devices.items()
    if extra is not None
}
# distribution -> extra of tumorseg that brings it
PACKAGES = {
    **{spec.wheels[0]: EXTRAS[name, "cpu"] for name, spec in BACKENDS.items() if len(spec.wheels) == 1},
    "tensorrt": "tensorrt-cu12 or tensorrt-cu13",
    "tensorrt-rtx": "tensorrt-rtx",
    "cuda-bindings": GPU_EXTRA,
    "pydicom": "dicom",
    "pylibjpeg": "dicom",
    "pylibjpeg-libjpeg": "dicom-jpeg",
    "pylibjpeg-openjpeg": "dicom",
    "pylibjpeg-rle": "dicom",
}
# distribution -> others that bring the same package
ALSO_NAMED = {"tensorrt": ("tensorrt-cu12", "tensorrt-cu13")}
NO_DRIVER_REMEDY = "install NVIDIA's driver (on Jetson: JetPack), or run on the CPU"


@dataclasses.dataclass(frozen=True)
class Finding:
    """status: 'ok', 'missing' (not needed by everybody) or 'wrong' (to be put right). remedy: '' where ok."""

    topic: str
    status: str
    detail: str
    remedy: str = ""


def examine(bundle: Path | None = None, device_folder: Path | None = None) -> list[Finding]:
    """All findings; with a bundle also about its files, the engines and the ranking of this device."""
    findings = [*_machine(), *_wheels(), *_packages(), *_backends()]
    if bundle is not None:
        findings += _bundle(bundle, device_folder)
    return findings


def _machine() -> Iterator[Finding]:
    facts = device_facts()
    yield Finding("python", OK, f"{platform.python_version()} ({sys.executable})")
    yield Finding("machine", OK, f"{facts['machine']}, {facts['cpu']}, {facts['cpus']} CPUs")
    reason, found = why_no_driver(), gpus()
    for number, gpu in enumerate(found):
        driver = f"driver {gpu.driver or 'of unknown version'}, CUDA up to {gpu.cuda}"
        topic = f"gpu {number}" if number else "gpu"
        yield Finding(topic, OK, f"{gpu.name}, compute capability {gpu.capability}, {driver}")
    if reason is not None:
        yield Finding("gpu", MISSING, reason, NO_DRIVER_REMEDY)
    elif not found:
        yield Finding(
            "gpu", WRONG, "the driver answers but tells no GPU's name", "check nvidia-smi, restart the device"
        )
    if resize_engine() == "opencv":
        yield Finding("opencv resize", OK, f"OpenCV {cv2.__version__} gives the rule's bits")
    else:
        yield Finding(
            "opencv resize",
            WRONG,
            f"OpenCV {cv2.__version__} differs from the rule; numpy does the work, far slower, same bits",
            "install opencv-python-headless from PyPI",
        )


def _wheels() -> Iterator[Finding]:
    for module, names in RIVALS.items():
        here = [f"{name} {version}" for name in names if (version := version_of(name))]
        if len(here) > 1:
            remedy = f"pip uninstall {' '.join(line.split()[0] for line in here)}, then install one of them"
            yield Finding(module, WRONG, f"{' and '.join(here)} share the module {module}", remedy)
        elif here:
            yield Finding(module, OK, here[0])
        else:
            extra = "pip install 'tumorseg[cpu]', or [gpu-cu12] or [gpu-cu13]"
            yield Finding(module, MISSING, "not installed by pip", extra if module == "onnxruntime" else "")


def _packages() -> Iterator[Finding]:
    for name, extra in PACKAGES.items():
        version = version_of(name)
        if version:
            yield Finding(name, OK, version)
        else:
            yield Finding(name, MISSING, "not installed", f"extra {extra}")


def _backends() -> Iterator[Finding]:
    for backend in BACKENDS:
        for device in devices_of(backend):
            topic, reason = f"{BACKEND}{backend} {device}", why_unavailable(backend, device)
            if reason is None:
                yield Finding(topic, OK, "can run here")
                continue
            if reason == why_no_driver():
                remedy = NO_DRIVER_REMEDY
            elif (backend, device) in EXTRAS:
                remedy = f"extra {EXTRAS[backend, device]}"
            else:
                remedy = f"a machine with this device ({device}) and its driver"
            yield Finding(topic, MISSING, reason, remedy)


def _bundle(root: Path, device_folder: Path | None) -> Iterator[Finding]:
    try:
        bundle = Bundle.open(root)
    except BundleError as error:
        yield Finding("bundle", WRONG, str(error), "copy or export the bundle again")
        return
    artefacts = ", ".join(f"{a.format} {a.precision}" for a in bundle.artefacts)
    yield Finding("bundle", OK, f"{bundle.name} {bundle.digest()[:16]}, whole: {artefacts}")
    folder = device_folder or find(bundle)
    if folder is None:
        remedy = "tumorseg bench --rank writes a ranking, tumorseg build an engine"
        yield Finding("device folder", MISSING, "none for this bundle, device and driver", remedy)
        return
    try:
        ranking = read_ranking(folder, bundle)
    except BundleError as error:
        yield Finding("ranking", WRONG, str(error), "measure again: tumorseg bench --rank")
    else:
        if ranking is None:
            yield Finding("ranking", MISSING, f"{folder} has none", "tumorseg bench --rank")
        else:
            names = ", ".join(f"{e.backend} {e.device} {e.precision}" for e in ranking.entries)
            yield Finding("ranking", OK, f"{names} (the fastest first)")
    found = gpus()
    for path in [*engines_in(folder), *engines_in(bundle.root)]:
        topic = f"engine {path.name}"
        try:
            key = read_key(path)
            if not found:
                yield Finding(topic, MISSING, "cannot be judged without a GPU", NO_DRIVER_REMEDY)
                continue
            tools = {"tensorrt": version_of("tensorrt"), "tensorrt_rtx": version_of("tensorrt-rtx")}
            versions = {tool: version for tool, version in tools.items() if version}
            gpu = next((one for one in found if one.name == key.gpu), found[0])
            require_machine(path, key, versions, int(gpu.capability.replace(".", "")), gpu.name)
        except (BackendError, BundleError) as error:
            yield Finding(topic, WRONG, str(error), f"tumorseg build {root} --device-folder {folder}")
        else:
            yield Finding(topic, OK, f"fits {gpu.name} and {key.tool} {key.tool_version}")


def version_of(distribution: str) -> str | None:
    """Version of an installed distribution, None where it is not installed."""
    for name in (distribution, *ALSO_NAMED.get(distribution, ())):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return None
