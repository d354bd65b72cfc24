from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fakes.cuda import FakeDriver
from fakes.session import FakeSession
from tumorseg_runtime import Contract, Frame, Segmenter
from tumorseg_runtime.core.errors import BackendError, InputError
from tumorseg_runtime.core.session import DEVICE, HOST, InProcess, InputForm, SessionInfo
from tumorseg_runtime.device.cuda import DeviceTensor, Gpu
from tumorseg_runtime.processing.batching import DeviceForm, open_form
from tumorseg_runtime.processing.preprocess import Preprocessor, resize

CONTRACT = Contract(height=64, width=32)
RANDOM = np.random.default_rng(1)
GRAY = Frame("gray", RANDOM.integers(0, 256, (90, 41), np.uint8))
COLOUR = Frame("colour", RANDOM.integers(0, 256, (30, 77, 3), np.uint8))


class FakePreprocess:
    """`CudaPreprocessor` on a fake GPU, with the CPU's arithmetic."""

    def __init__(self, contract: Contract, gpu: Gpu, dtype: str) -> None:
        self.contract, self.gpu, self.dtype = contract, gpu, dtype
        self.taken_again = 0

    def __call__(self, images: Sequence[Any], out: DeviceTensor | None = None) -> DeviceTensor:
        on_cpu = Preprocessor(self.contract)
        batch = np.stack([on_cpu(image) for image in images]).astype(self.dtype)
        self.taken_again += out is not None
        memory = self.gpu.device_memory(batch.nbytes) if out is None else out.memory
        self.gpu.upload(memory.pointer, batch.ctypes.data, batch.nbytes)
        return DeviceTensor(self.gpu, memory, batch.shape, batch.dtype)


class DeviceSession(InProcess):
    """A session that reads device memory alone."""

    def __init__(self, dtype: str) -> None:
        self.input = InputForm(dtype=dtype, max_batch=4, memory=(HOST, DEVICE))
        self.info = SessionInfo("fake-gpu", "cuda", "fp32", {})
        self.seen: list[DeviceTensor] = []

    def infer(self, batch: DeviceTensor) -> np.ndarray:
        self.seen.append(batch)
        return batch.numpy().astype(np.float32).mean(axis=1, keepdims=True)


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> list[FakePreprocess]:
    """What was opened in place of preprocessors on a GPU."""
    opened: list[FakePreprocess] = []

    def open_preprocessor(
        contract: Contract, *, dtype: str, cache: Path | None, ordinal: int
    ) -> FakePreprocess:
        opened.append(FakePreprocess(contract, Gpu(FakeDriver()), dtype))
        return opened[-1]

    monkeypatch.setattr("tumorseg_runtime.processing.preprocess_cuda.open_preprocessor", open_preprocessor)
    return opened


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_tensors_are_those_of_the_preprocessor_rounded_once(dtype: str) -> None:
    form = open_form(CONTRACT, InputForm(dtype=dtype), "fake")
    batch = form.gather([form.prepare(GRAY), form.prepare(COLOUR)])
    on_cpu = Preprocessor(CONTRACT)
    expected = np.stack([on_cpu(GRAY.pixels), on_cpu(COLOUR.pixels)]).astype(dtype)
    assert batch.dtype == dtype
    np.testing.assert_array_equal(batch, expected)
    assert form.gather([form.prepare(GRAY)]).shape == (1, 3, 64, 32)


def test_pixels_are_resized_and_gray_is_repeated_as_often_as_asked() -> None:
    for channels, frame in ((3, GRAY), (1, GRAY), (3, COLOUR)):
        form = open_form(CONTRACT, InputForm(dtype="uint8", channels=channels), "fake")
        planes = form.prepare(frame)
        resized = resize(frame.pixels, 64, 32)
        assert (planes.shape, planes.dtype) == ((channels, 64, 32), np.uint8)
        for index, plane in enumerate(planes):
            np.testing.assert_array_equal(plane, resized if frame is GRAY else resized[:, :, index])
    with pytest.raises(InputError, match="colour: is a colour image, the network takes gray"):
        open_form(CONTRACT, InputForm(dtype="uint8", channels=1), "fake").prepare(COLOUR)


@pytest.mark.parametrize(
    ("form", "place", "error", "message"),
    [
        (InputForm(dtype="int8"), "cpu", BackendError, "fake takes int8 NCHW, expected NCHW in float32"),
        (InputForm(layout="NHWC"), "cpu", BackendError, "fake takes float32 NHWC, expected NCHW"),
        (InputForm(), "cuda", BackendError, "fake takes float32 in the memory of host, expected a session"),
        (InputForm(dtype="uint8", memory=(HOST, DEVICE)), "cuda", BackendError, "fake takes uint8"),
        (InputForm(), "gpu", InputError, "preprocessing on 'gpu', expected one of cpu, cuda"),
    ],
)
def test_what_nothing_here_makes_is_refused(
    form: InputForm, place: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        open_form(CONTRACT, form, "fake", place)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_segmenter_hands_the_session_what_lies_on_the_gpu(on_gpu: list[FakePreprocess], dtype: str) -> None:
    session = DeviceSession(dtype)
    segmenter = Segmenter(CONTRACT, session, preprocess="cuda")
    images = [GRAY.pixels, COLOUR.pixels, GRAY.pixels, GRAY.pixels, COLOUR.pixels]
    found = segmenter.predict(images)
    assert [type(batch) for batch in session.seen] == [DeviceTensor, DeviceTensor]
    (preprocess,) = on_gpu
    assert (preprocess.dtype, preprocess.taken_again) == (
        dtype,
        1,
    )  # the second batch lies where the first did
    assert session.seen[0].memory is session.seen[1].memory
    host = Segmenter(CONTRACT, FakeSession())
    if dtype == "float32":
        for one, other in zip(found, host.predict(images), strict=True):
            np.testing.assert_array_equal(one.logits, other.logits)
    streamed = [result.prediction for result in segmenter.stream(images, batch_size=2)]
    for one, two in zip(found, streamed, strict=True):
        assert two is not None
        np.testing.assert_array_equal(one.masks, two.masks)


@pytest.mark.fault
def test_the_memory_of_a_call_that_failed_or_hangs_is_not_used_again(on_gpu: list[FakePreprocess]) -> None:
    go_on = threading.Event()

    class Hanging(DeviceSession):
        def infer(self, batch: DeviceTensor) -> np.ndarray:
            answer = super().infer(batch)
            assert len(self.seen) > 1 or go_on.wait(60)
            return answer

    session = Hanging("float32")
    segmenter = Segmenter(CONTRACT, session, preprocess="cuda")
    with pytest.raises(BackendError, match=r"gave no answer within 0\.2 s"):
        segmenter.predict(GRAY.pixels, timeout_s=0.2)
    segmenter.predict(COLOUR.pixels, timeout_s=60)
    assert session.seen[0].memory is not session.seen[1].memory
    go_on.set()


def test_sixteen_threads_share_a_form_and_no_memory(on_gpu: list[FakePreprocess]) -> None:
    segmenter = Segmenter(CONTRACT, DeviceSession("float32"), preprocess="cuda")
    images = [RANDOM.integers(0, 256, (20 + n, 30), np.uint8) for n in range(16)]
    alone = [segmenter.predict(image).logits for image in images]
    wrong: list[int] = []

    def run(n: int) -> None:
        if any(not np.array_equal(segmenter.predict(images[n]).logits, alone[n]) for _ in range(10)):
            wrong.append(n)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_colour_for_a_gray_network_is_refused_before_the_gpu_sees_it(on_gpu: list[FakePreprocess]) -> None:
    contract = dataclasses.replace(CONTRACT, mean=(0.5,), std=(0.2,))
    form = open_form(contract, InputForm(memory=(HOST, DEVICE)), "fake", "cuda")
    assert isinstance(form, DeviceForm)
    with pytest.raises(InputError, match="colour: is a colour image, the network takes gray"):
        form.prepare(COLOUR)
    assert SimpleNamespace(pixels=form.prepare(GRAY)).pixels is GRAY.pixels
