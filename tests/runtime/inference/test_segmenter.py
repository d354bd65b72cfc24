from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fakes.session import FakeSession
from tumorseg_runtime import Bundle, Contract, Segmenter
from tumorseg_runtime.core.errors import BackendError, BundleError, InputError, OutputError, ParityError
from tumorseg_runtime.core.session import InputForm
from tumorseg_runtime.images.read import write_png
from tumorseg_runtime.inference.prediction import Prediction

Scene = Callable[..., npt.NDArray[np.uint8]]
Maker = Callable[..., Path]
CONTRACT = Contract(height=64, width=64)
SIZES = [(64, 64), (100, 37), (1, 1), (300, 410), (33, 64), (5, 200), (64, 128), (90, 90)]


@pytest.fixture
def mixed(scene: Scene) -> list[npt.NDArray[np.uint8]]:
    """Images of mixed sizes, gray next to colour."""
    return [scene(*size, colour=index % 2 == 1, seed=index) for index, size in enumerate(SIZES)]


def same(a: Prediction, b: Prediction) -> None:
    np.testing.assert_array_equal(a.masks, b.masks)
    assert a.lesions == b.lesions


def test_bright_discs_are_found_where_they_are(small_bundle: Path, scene: Scene) -> None:
    segmenter = Segmenter.open(small_bundle, self_test=True, threads=1)
    image = scene(200, 320, seed=4)
    prediction = segmenter.predict(image)
    assert prediction.image is image
    assert prediction.masks.shape == (1, 200, 320)
    assert prediction.masks.dtype == np.bool_
    truth = image > 110
    overlap = 2 * (prediction.mask & truth).sum() / (prediction.mask.sum() + truth.sum())
    assert overlap > 0.95
    assert sum(lesion.area_px for lesion in prediction.lesions) == prediction.mask.sum()
    assert prediction.to_dict()["height"] == 200
    assert segmenter.info.backend == "onnxruntime"


def test_batches_keep_order_and_do_not_change_results(
    small_bundle: Path, mixed: list[npt.NDArray[np.uint8]]
) -> None:
    alone = Segmenter.open(small_bundle, batch_size=1, threads=1)
    singles = [alone.predict(image) for image in mixed]
    assert any(prediction.mask.any() for prediction in singles)
    for batch_size in (2, 3, 8, 50):
        together = Segmenter.open(small_bundle, batch_size=batch_size, threads=1).predict(mixed)
        assert [p.name for p in together] == [f"image {i}" for i in range(len(mixed))]
        for one, other, image in zip(singles, together, mixed, strict=True):
            assert other.image is image
            assert other.masks.shape[1:] == image.shape[:2]
            same(one, other)
    backwards = Segmenter.open(small_bundle, batch_size=3, threads=1).predict(mixed[::-1])
    for one, other in zip(singles, backwards[::-1], strict=True):
        same(one, other)


def test_logits_do_not_depend_on_batch_mates(small_bundle: Path, mixed: list[npt.NDArray[np.uint8]]) -> None:
    from tumorseg_runtime.backends import open_session
    from tumorseg_runtime.processing.preprocess import Preprocessor

    session = open_session(Bundle.open(small_bundle), threads=1)
    batch = np.stack([Preprocessor(CONTRACT)(image) for image in mixed])
    single = np.concatenate([session.infer(batch[i : i + 1]) for i in range(len(batch))])
    np.testing.assert_array_equal(session.infer(batch).view(np.uint32), single.view(np.uint32))


def test_16_threads_on_one_segmenter_give_equal_results(
    small_bundle: Path, mixed: list[npt.NDArray[np.uint8]]
) -> None:
    segmenter = Segmenter.open(small_bundle, batch_size=3)
    expected = segmenter.predict(mixed)

    def work(seed: int) -> list[tuple[int, Prediction]]:
        order = np.random.default_rng(seed).permutation(len(mixed))
        return list(zip(order, segmenter.predict([mixed[i] for i in order]), strict=True))

    with ThreadPoolExecutor(16) as pool:
        for results in pool.map(work, range(64)):
            for index, prediction in results:
                same(prediction, expected[index])


def test_any_number_of_images_is_taken_lazily() -> None:
    session = FakeSession()
    segmenter = Segmenter(CONTRACT, session, batch_size=4)
    taken = []

    def frames() -> Any:
        for index in range(10):
            taken.append(index)
            yield np.full((8, 8), index, np.uint8)

    predictions = segmenter.predict_each(frames())
    assert taken == []
    next(predictions)
    assert len(taken) == 4
    assert len(list(predictions)) == 9
    assert session.batches == [4, 4, 2]
    assert segmenter.predict([]) == []


def test_paths_arrays_and_names(tmp_path: Path, scene: Scene) -> None:
    image = scene(40, 50, colour=True)
    write_png(tmp_path / "a.png", image)
    segmenter = Segmenter(CONTRACT, FakeSession())
    first, second, third = segmenter.predict([tmp_path / "a.png", image, str(tmp_path / "a.png")])
    assert (first.name, second.name, third.name) == (
        str(tmp_path / "a.png"),
        "image 1",
        str(tmp_path / "a.png"),
    )
    same(first, second)
    same(first, third)
    np.testing.assert_array_equal(first.image, image)


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.float32), np.zeros((4, 4, 4), np.uint8), None, 7])
def test_a_bad_image_is_named_by_its_place(image: Any) -> None:
    with pytest.raises(InputError, match="image 1"):
        Segmenter(CONTRACT, FakeSession()).predict([np.zeros((4, 4), np.uint8), image])


def test_batch_size_and_input_form_are_checked() -> None:
    for size in (0, 9):
        with pytest.raises(InputError, match=f"batch size is {size}, expected 1 to 8"):
            Segmenter(CONTRACT, FakeSession(max_batch=8), batch_size=size)
    session = FakeSession()
    session.input = InputForm(dtype="int8")
    with pytest.raises(BackendError, match="fake takes int8 NCHW, expected NCHW in float32, float16, uint8"):
        Segmenter(CONTRACT, session)


def test_classes_have_their_own_masks_and_lesions(make_bundle: Maker, tmp_path: Path, scene: Scene) -> None:
    contract = Contract(height=64, width=64, classes=("bright", "dark"))
    segmenter = Segmenter.open(make_bundle(tmp_path / "bundle", contract), self_test=True)
    prediction = segmenter.predict(scene(80, 90, seed=1))
    bright, dark = prediction.masks
    assert bright.any()
    assert not (bright & dark).any()
    assert {lesion.label for lesion in prediction.lesions} == {"bright", "dark"}
    np.testing.assert_array_equal(prediction.mask, bright | dark)


def test_the_self_test_refuses_a_network_that_is_not_pytorchs(make_bundle: Maker, tmp_path: Path) -> None:
    root = make_bundle(tmp_path / "bundle", golden_error=0.5)
    Segmenter.open(root)  # the seal is whole, so only the self-test can tell
    with pytest.raises(ParityError, match=r"this device must not serve: .*scene_0 \(one file\): logit error"):
        Segmenter.open(root, self_test=True)


def test_logits_that_are_not_finite_never_become_a_mask(make_bundle: Maker, tmp_path: Path) -> None:
    segmenter = Segmenter.open(make_bundle(tmp_path / "bundle", poison=True))
    assert segmenter.predict(np.zeros((10, 10), np.uint8)).masks.shape == (1, 10, 10)
    with pytest.raises(OutputError, match="4096 logits that are not finite: use the fp32 artefact"):
        segmenter.predict(np.full((10, 10), 255, np.uint8))


@pytest.mark.fault
def test_a_damaged_bundle_never_opens(small_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(small_bundle, tmp_path / "copy"))
    (copy / "golden/scene_0.png").unlink()
    with pytest.raises(BundleError, match=r"golden/scene_0.png is missing"):
        Segmenter.open(copy)


@pytest.mark.parametrize("device", ["tensorrt", "tensorrt:1"])
def test_every_gpu_of_the_tensorrt_provider_has_the_device_folder(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("tumorseg_runtime.device.cache.find", lambda bundle: asked.append(bundle.name))
    with pytest.raises(BackendError, match="onnxruntime on 'tensorrt"):
        Segmenter.open(small_bundle, device=device)
    assert len(asked) == 1


def test_logits_come_as_they_are_rounded_or_not_at_all() -> None:
    for word in ("float32", 1, None):
        with pytest.raises(InputError, match=rf"logits is {word!r}, expected True, False or 'float16'"):
            Segmenter(CONTRACT, FakeSession(), logits=word)  # type: ignore[arg-type]
