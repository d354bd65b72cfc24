from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tumorseg_benchmarks.variants import machine


class FakeDriver:
    """A libcuda with one device, or with one that answers nothing but an error."""

    def __init__(self, status: int = 0) -> None:
        self.status = status

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:
        return self.status

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:
        name.value = b"NVIDIA Test"
        return self.status

    def cuDriverGetVersion(self, version: Any) -> int:
        ctypes.cast(version, ctypes.POINTER(ctypes.c_int)).contents.value = 13020
        return self.status


def test_facts_name_this_machine() -> None:
    facts = machine.machine_facts()
    assert facts["packages"]["numpy"] == np.__version__
    assert 1 <= facts["usable_cores"] <= facts["cores"]
    assert facts["cpu"]
    assert facts["memory_gib"] > 0
    assert facts["date"].endswith("+00:00")


def test_without_a_driver_the_gpu_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "why_no_driver", lambda *ordinal: "no NVIDIA driver")
    assert machine.machine_facts()["gpu"] == "no NVIDIA driver"


def test_gpu_is_named_by_the_driver() -> None:
    assert machine.gpu_name(FakeDriver()) == "NVIDIA Test, driver for CUDA 13.2"  # type: ignore[arg-type]
    assert machine.gpu_name(FakeDriver(100)) == "unnamed GPU (the driver returned (100, 100, 100))"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor : 0\nmodel name\t: Some CPU @ 2 GHz\n", "Some CPU @ 2 GHz"),
        ("processor : 0\nModel : Some Board Rev 1\n", "Some Board Rev 1"),
    ],
)
def test_cpu_model_from_cpuinfo(tmp_path: Path, text: str, name: str) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert machine.cpu_model(tmp_path / "cpuinfo") == name
