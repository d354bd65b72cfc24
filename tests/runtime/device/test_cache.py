from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import BundleError
from tumorseg_runtime.device import cache as module
from tumorseg_runtime.device.cache import (
    RANKING,
    Entry,
    beside,
    device_facts,
    find,
    folder_name,
    in_cache,
    read_ranking,
    write_ranking,
)
from tumorseg_runtime.device.driver import GpuFacts

SLOW = Entry("onnxruntime", "cpu", "fp32", 1, {"onnxruntime": "1.0"}, "passed", 0.8)
FAST = Entry("mnn", "cpu", "fp32", 1, {"MNN": "3"}, "passed", 0.4, "spread 0.39..0.44")
UNKNOWN = Entry("tensorrt", "cuda", "fp16", 1, {}, "unverified", None, "no NVIDIA driver")


def test_a_ranking_is_read_as_it_was_written(small_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(small_bundle)
    written = write_ranking(tmp_path / "device", bundle, (UNKNOWN, FAST, SLOW))
    assert written.entries == (FAST, SLOW, UNKNOWN)
    assert read_ranking(tmp_path / "device", bundle) == written
    assert read_ranking(tmp_path, bundle) is None


def test_a_ranking_of_another_bundle_device_or_schema_is_refused(
    small_bundle: Path, make_bundle: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(small_bundle)
    write_ranking(tmp_path, bundle, (SLOW,))
    other = Bundle.open(make_bundle(tmp_path / "other", golden_error=0.1))
    with pytest.raises(BundleError, match="its bundle is"):
        read_ranking(tmp_path, other)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(module, "gpus", lambda: (GpuFacts("Orin", "8.7", "12.6", "540.4"),))
        with pytest.raises(BundleError, match=r"its device is .*, expected .*Orin.*: measure again"):
            read_ranking(tmp_path, bundle)
    values = json.loads((tmp_path / RANKING).read_text())
    for change in ({"schema": 2}, {"entries": [{"backend": "x"}]}, {"more": 1}):
        (tmp_path / RANKING).write_text(json.dumps({**values, **change}))
        with pytest.raises(BundleError, match=r"schema is 2, expected 1|lacks the field|unknown field more"):
            read_ranking(tmp_path, bundle)
    (tmp_path / RANKING).write_text("[]")
    with pytest.raises(BundleError, match="is a list of 0, expected an object"):
        read_ranking(tmp_path, bundle)


def test_the_name_covers_bundle_device_and_driver(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(small_bundle)
    name = folder_name(bundle)
    assert name == folder_name(bundle)
    assert name.startswith(bundle.digest()[:16])
    names = {name}
    gpu = GpuFacts("Orin", "8.7", "12.6", "540.4")
    newer = dataclasses.replace(gpu, driver="550.0")
    for found in ((gpu,), (gpu, newer), (newer,)):
        monkeypatch.setattr(module, "gpus", lambda found=found: found)
        names.add(folder_name(bundle))
    assert len(names) == 4
    assert device_facts()["gpu"]["driver"] == "550.0"


def test_the_folder_beside_the_bundle_comes_before_the_cache(
    make_bundle: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bundle = Bundle.open(make_bundle(tmp_path / "bundle"))
    assert find(bundle) is None
    in_cache(bundle).mkdir(parents=True)
    assert find(bundle) == in_cache(bundle) == tmp_path / "cache" / "tumorseg" / folder_name(bundle)
    beside(bundle).mkdir(parents=True)
    assert find(bundle) == beside(bundle) == tmp_path / "bundle.device" / folder_name(bundle)
    Bundle.open(tmp_path / "bundle")  # its seal is untouched


def test_the_gpus_facts_come_from_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes
    from types import SimpleNamespace

    from tumorseg_runtime.device import driver

    def put(value: int) -> Callable[..., int]:
        def call(pointer: Any, *_: Any) -> int:
            pointer._obj.value = value
            return 0

        return call

    def name(buffer: Any, *_: Any) -> int:
        buffer.value = b"Orin"
        return 0

    def attribute(pointer: Any, which: int, device: Any) -> int:
        pointer._obj.value = {75: 8, 76: 7}[which]
        return 0

    library = SimpleNamespace(
        cuInit=lambda _: 0, cuDriverGetVersion=put(12060), cuDeviceGet=put(0), cuDeviceGetName=name,
        cuDeviceGetAttribute=attribute, cuDeviceGetCount=put(1),
    )  # fmt: skip
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    monkeypatch.setattr(driver, "_KERNEL_MODULE", Path("/gone"))
    for cached in (driver.why_no_driver, driver.gpus):
        cached.cache_clear()
    try:
        assert driver.gpu_facts() == GpuFacts("Orin", "8.7", "12.6", None)
        assert driver.gpus() == (driver.gpu_facts(),)
    finally:
        for cached in (driver.why_no_driver, driver.gpus):
            cached.cache_clear()
