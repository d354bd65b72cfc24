"""A machine with TensorRT, for tests of its backend."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.cuda import FakeDriver
from fakes.tensorrt import FakeTensorRt
from tumorseg_export.engine import build
from tumorseg_runtime.backends import BACKENDS
from tumorseg_runtime.backends import tensorrt as backend
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.device.cuda import Gpu
from tumorseg_runtime.device.engines import EngineKey, Profile, write_engine
from tumorseg_runtime.inference.segmenter import Segmenter

PROFILE = Profile(1, 2, 4)


class Device:
    """A fake machine with a GPU and TensorRT 10.3.0, and a device folder with one engine of a bundle."""

    def __init__(self, bundle: Bundle, folder: Path, **network: Any) -> None:
        self.bundle, self.folder = bundle, folder
        self.driver = FakeDriver()
        self.trt = FakeTensorRt(self.driver, **network)
        self.gpu = Gpu(self.driver)
        self.key = EngineKey(
            bundle.files["model.onnx"].sha256, bundle.digest(), "fp32", "tensorrt", "10.3.0", (87,),
            self.gpu.name, PROFILE, None,
        )  # fmt: skip
        self.write(self.key)

    def write(self, key: EngineKey) -> None:
        for path in self.folder.glob("*"):
            path.unlink()
        builder = self.trt.Builder(None)
        config = builder.create_builder_config()
        config.profiles = [
            tuple((n, self.trt.channels, *self.trt.size) for n in dataclasses.astuple(PROFILE))
        ]
        write_engine(self.folder / key.name(), bytes(builder.build_serialized_network(None, config)), key)

    def open(self) -> backend.TensorRtSession:
        return backend.open_session(BACKENDS["tensorrt"], self.bundle, "cuda", "fp32", None, self.folder)


@contextlib.contextmanager
def that_builds() -> Iterator[FakeTensorRt]:
    """TensorRT 10.3.0 on a fake GPU of compute capability 8.7, in the place of the real ones."""
    driver = FakeDriver()
    fake = FakeTensorRt(driver)

    def door(bundle: Bundle, session: Any, size: int, *_: Any, **__: Any) -> Segmenter:
        return Segmenter(bundle.contract, session, size, preprocess="cpu")  # the fake has no streams

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tensorrt", fake)
        patch.setattr(build, "why_no_driver", lambda *ordinal: None)
        patch.setattr(build, "door_of", door)
        patch.setattr(backend, "why_unavailable", lambda device: None)
        for holder in (build, backend):
            patch.setattr(holder, "open_gpu", lambda ordinal=0: Gpu(driver))
        yield fake
