"""What /sys and /proc and a GPU's library say about the clocks, read from files and a library of the test."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest

from tumorseg_benchmarks.latency import cpu_frequency
from tumorseg_benchmarks.latency.cpu_frequency import cpu_state, gpu_state


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_machine_that_shows_everything(tmp_path: Path) -> None:
    for number, khz in enumerate((2_400_000, 3_100_000)):
        cpu = tmp_path / f"sys/devices/system/cpu/cpu{number}"
        write(cpu / "cpufreq/scaling_cur_freq", f"{khz}\n")
        write(cpu / "cpufreq/scaling_governor", "performance\n")
        write(cpu / "thermal_throttle/core_throttle_count", "3\n")
    write(tmp_path / "proc/stat", "cpu  10 0 10 100 0 0 0 250 0 0\n")
    write(tmp_path / "proc/pressure/cpu", "some avg10=12.50 avg60=1.00 avg300=0.10 total=9\n")
    assert cpu_state(tmp_path) == {
        "mhz": [2400, 3100], "governor": "performance", "throttled": 6, "stolen_s": 2.5,
        "waiting_percent": 12.5,
    }  # fmt: skip


def test_what_is_not_shown_says_so_and_cpuinfo_stands_in(tmp_path: Path) -> None:
    unreadable = "not readable here"
    assert set(cpu_state(tmp_path).values()) == {unreadable}
    write(tmp_path / "proc/cpuinfo", "processor : 0\ncpu MHz\t\t: 2649.9\n")
    assert cpu_state(tmp_path)["mhz"] == [2650]


class Nvml:
    """The few calls that are made; `status` is what the clock's returns."""

    def __init__(self, status: int = 0, first: int = 0) -> None:
        self.status, self.first = status, first

    def nvmlInit_v2(self) -> int:
        return self.first

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:
        return 0 if uuid == b"GPU-1" else 6

    def nvmlDeviceGetClockInfo(self, handle: Any, kind: int, clock: Any) -> int:
        ctypes.cast(clock, ctypes.POINTER(ctypes.c_uint))[0] = 1980
        return self.status

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Any, reasons: Any) -> int:
        ctypes.cast(reasons, ctypes.POINTER(ctypes.c_ulonglong))[0] = 0x4 | 0x40
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:
        memory[0], memory[1], memory[2] = 80_000_000_000, 79_000_000_000, 1_000_000_000
        return 0

    def nvmlDeviceGetPowerUsage(self, handle: Any, power: Any) -> int:
        ctypes.cast(power, ctypes.POINTER(ctypes.c_uint))[0] = 350_500
        return 0


def test_a_gpu_says_clock_reasons_and_memory_and_a_failed_call_its_status(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert gpu_state(None) == {"unreadable": "libnvidia-ml.so.1 is not installed"}
    monkeypatch.setattr(cpu_frequency, "gpu_uuid", lambda: None)
    assert gpu_state(Nvml()) == {"unreadable": "the driver tells no UUID of the GPU"}
    monkeypatch.setattr(cpu_frequency, "gpu_uuid", lambda: "GPU-2")
    assert gpu_state(Nvml()) == {"unreadable": "nvmlDeviceGetHandleByUUID returned 6"}
    monkeypatch.setattr(cpu_frequency, "gpu_uuid", lambda: "GPU-1")
    assert gpu_state(Nvml()) == {
        "mhz": 1980, "throttled": "software power cap, hardware thermal", "used_mb": 1000.0,
        "watts": 350.5,
    }  # fmt: skip
    assert gpu_state(Nvml(status=3))["mhz"] == "returned 3"
    assert gpu_state(Nvml(first=9)) == {"unreadable": "nvmlInit_v2 returned 9"}
