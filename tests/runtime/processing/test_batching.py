from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tumorseg_runtime import Contract, Frame
from tumorseg_runtime.core.errors import BackendError, InputError
from tumorseg_runtime.core.session import DEVICE, HOST, STREAM, InputForm
from tumorseg_runtime.processing.batching import PLACES, HostForm, PixelForm, place_of
from tumorseg_runtime.processing.preprocess import Preprocessor, resize

CONTRACT = Contract(height=64, width=32)
RANDOM = np.random.default_rng(1)
GRAY = Frame("gray", RANDOM.integers(0, 256, (90, 41), np.uint8))
COLOUR = Frame("colour", RANDOM.integers(0, 256, (30, 77, 3), np.uint8))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_tensors_are_those_of_the_preprocessor_rounded_once(dtype: str) -> None:
    form = HostForm(CONTRACT, InputForm(dtype=dtype))
    batch = form.gather([form.prepare(GRAY), form.prepare(COLOUR)])
    on_cpu = Preprocessor(CONTRACT)
    expected = np.stack([on_cpu(GRAY.pixels), on_cpu(COLOUR.pixels)]).astype(dtype)
    assert batch.dtype == dtype
    np.testing.assert_array_equal(batch, expected)
    assert form.gather([form.prepare(GRAY)]).shape == (1, 3, 64, 32)


def test_pixels_are_resized_and_gray_is_repeated_as_often_as_asked() -> None:
    for channels, frame in ((3, GRAY), (1, GRAY), (3, COLOUR)):
        form = HostForm(CONTRACT, InputForm(dtype="uint8", channels=channels))
        planes = form.prepare(frame)
        resized = resize(frame.pixels, 64, 32)
        assert (planes.shape, planes.dtype) == ((channels, 64, 32), np.uint8)
        for index, plane in enumerate(planes):
            np.testing.assert_array_equal(plane, resized if frame is GRAY else resized[:, :, index])
    with pytest.raises(InputError, match="colour: is a colour image, the network takes gray"):
        HostForm(CONTRACT, InputForm(dtype="uint8", channels=1)).prepare(COLOUR)


@pytest.mark.parametrize(
    ("form", "place", "error", "message"),
    [
        (InputForm(dtype="int8"), "cpu", BackendError, "fake takes int8 NCHW, expected NCHW in float32"),
        (InputForm(layout="NHWC"), "cpu", BackendError, "fake takes float32 NHWC, expected NCHW"),
        (InputForm(), "cuda", BackendError, "fake takes float32 in the memory of host, expected a session"),
        (
            InputForm(memory=(HOST, DEVICE)),
            "cuda",
            BackendError,
            "fake takes float32 in the memory of host or",
        ),
        (InputForm(), "gpu", InputError, "preprocessing on 'gpu', expected one of cpu, cuda"),
    ],
)
def test_what_nothing_here_makes_is_refused(
    form: InputForm, place: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        place_of(form, "fake", place)


def test_images_are_preprocessed_where_the_session_runs() -> None:
    on_stream = InputForm(memory=(HOST, DEVICE, STREAM))
    assert [place_of(form, "fake", None) for form in (InputForm(), on_stream)] == ["cpu", "cuda"]
    assert [place_of(on_stream, "fake", place) for place in PLACES] == list(PLACES)


def test_colour_for_a_gray_network_is_refused_before_the_gpu_sees_it() -> None:
    contract = dataclasses.replace(CONTRACT, mean=(0.5,), std=(0.2,))
    form = PixelForm(contract, InputForm())
    with pytest.raises(InputError, match="colour: is a colour image, the network takes gray"):
        form.prepare(COLOUR)
    assert form.prepare(GRAY) is GRAY.pixels
