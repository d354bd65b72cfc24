"""The state of the machine's clocks before and after a measurement: what a reader needs to doubt a figure.

Nothing is guessed: what this machine does not show is a sentence that says so.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from tumorseg_runtime.device.driver import gpu_uuid, why_no_driver

MHZ_PER_KHZ = 1e-3
NVML = "libnvidia-ml.so.1"
NVML_CLOCK_SM = 1
# nvmlClocksThrottleReasons, by bit
THROTTLE = {
    0x1: "idle", 0x2: "application clocks", 0x4: "software power cap", 0x8: "hardware slowdown",
    0x10: "sync boost", 0x20: "software thermal", 0x40: "hardware thermal", 0x80: "hardware power brake",
    0x100: "display clocks",
}  # fmt: skip


def cpu_frequency_state(root: Path = Path("/")) -> dict[str, Any]:
    """Clocks, governor, throttling, stolen time and waiting for a CPU; then those of the GPU."""
    return {"cpu": cpu_state(root), "gpu": why_no_driver() or gpu_state(_nvml())}


def cpu_state(root: Path) -> dict[str, Any]:
    """From /sys and /proc.

    mhz: of each CPU. governor: in words. throttled: events since the start of the system. stolen_s: seconds
    that the hypervisor gave to others. waiting_percent: share of the last 10 s in which some task waited for
    a CPU.
    """
    cpus = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*"))
    return {
        "mhz": _mhz(cpus, root / "proc/cpuinfo") or "not readable here",
        "governor": _text(cpus, "cpufreq/scaling_governor") or "not readable here",
        "throttled": _throttled(cpus),
        "stolen_s": _stolen(root / "proc/stat"),
        "waiting_percent": _waiting(root / "proc/pressure/cpu"),
    }


def _mhz(cpus: list[Path], cpuinfo: Path) -> list[int]:
    """From cpufreq, else what /proc/cpuinfo says (on a virtual machine a constant)."""
    files = [cpu / "cpufreq/scaling_cur_freq" for cpu in cpus]
    if files and all(file.is_file() for file in files):
        return [round(int(file.read_text()) * MHZ_PER_KHZ) for file in files]
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    return [round(float(line.partition(":")[2])) for line in lines if line.startswith("cpu MHz")]


def _text(cpus: list[Path], name: str) -> str:
    found = {(cpu / name).read_text().strip() for cpu in cpus if (cpu / name).is_file()}
    return ", ".join(sorted(found))


def _throttled(cpus: list[Path]) -> int | str:
    files = [cpu / "thermal_throttle/core_throttle_count" for cpu in cpus]
    counts = [int(file.read_text()) for file in files if file.is_file()]
    return sum(counts) if counts else "not readable here"


def _stolen(stat: Path) -> float | str:
    if not stat.is_file():
        return "not readable here"
    fields = stat.read_text().splitlines()[0].split()
    return int(fields[8]) / 100  # clock ticks of user space are 1/100 s on Linux


def _waiting(pressure: Path) -> float | str:
    try:
        some = pressure.read_text().splitlines()[0]
    except OSError:
        return "not readable here"
    return float(dict(part.split("=") for part in some.split()[1:])["avg10"])


def _nvml() -> Any:
    """libnvidia-ml, None where there is none: a Jetson's driver comes without."""
    try:
        return ctypes.CDLL(NVML)
    except OSError:
        return None


def gpu_state(nvml: Any) -> dict[str, Any]:
    """Of the first GPU that CUDA shows: clock of the multiprocessors, throttling, memory in use, power.

    nvml: the library, which is asked by UUID: it counts the GPUs that CUDA_VISIBLE_DEVICES hides, too.
    `used_mb` counts all processes. What cannot be read says why, a call that fails its status.
    """
    if nvml is None:
        return {"unreadable": f"{NVML} is not installed"}
    handle, uuid = ctypes.c_void_p(), gpu_uuid()
    if uuid is None:
        return {"unreadable": "the driver tells no UUID of the GPU"}
    for name, arguments in (
        ("nvmlInit_v2", ()),
        ("nvmlDeviceGetHandleByUUID", (uuid.encode(), ctypes.byref(handle))),
    ):
        if status := getattr(nvml, name)(*arguments):
            return {"unreadable": f"{name} returned {status}"}
    clock, reasons, memory = ctypes.c_uint(), ctypes.c_ulonglong(), (ctypes.c_ulonglong * 3)()
    power = ctypes.c_uint()
    statuses = {
        "mhz": nvml.nvmlDeviceGetClockInfo(handle, NVML_CLOCK_SM, ctypes.byref(clock)),
        "throttled": nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle, ctypes.byref(reasons)),
        "used_mb": nvml.nvmlDeviceGetMemoryInfo(handle, memory),  # total, free, used
        "watts": nvml.nvmlDeviceGetPowerUsage(handle, ctypes.byref(power)),
    }
    active = [name for bit, name in THROTTLE.items() if reasons.value & bit]
    values = {"mhz": clock.value, "throttled": ", ".join(active) or "no", "used_mb": memory[2] / 1e6}
    values["watts"] = power.value / 1e3
    return {name: values[name] if status == 0 else f"returned {status}" for name, status in statuses.items()}
