"""The deploy forms behind `Segmenter`: pixels in, masks out, the decisions of the float path."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner

from tumorseg_runtime import Bundle, Contract, Segmenter
from tumorseg_runtime.backends import open_session
from tumorseg_runtime.cli.predict import predict
from tumorseg_runtime.cli.verify import verify
from tumorseg_runtime.core.errors import BackendError, BundleError, InputError, OutputError
from tumorseg_runtime.core.session import LOGITS, MASKS, checked_infer
from tumorseg_runtime.images.read import write_png

pytest.importorskip("onnxruntime")
Maker = Callable[..., Path]
NAME, GRAY = "onnxruntime-deploy", "onnxruntime-deploy-gray"
Converter = Callable[[Path, str], None]
Scene = Callable[..., npt.NDArray[np.uint8]]


@pytest.fixture
def root(make_bundle: Maker, convert_bundle: Converter, tmp_path: Path) -> Path:
    """A bundle with both deploy forms."""
    made = make_bundle(tmp_path / "bundle")
    convert_bundle(made, "onnx-deploy")
    convert_bundle(made, "onnx-deploy-gray")
    return made


@pytest.mark.parametrize("backend", [NAME, GRAY])
def test_masks_are_those_of_the_float_path(root: Path, backend: str, scene: Scene) -> None:
    deploy, floats = Segmenter.open(root, backend=backend, self_test=True), Segmenter.open(root)
    assert (deploy.gives_masks, floats.gives_masks) == (True, False)
    assert deploy.info.backend == backend
    assert [open_session(Bundle.open(root), backend=name).output for name in (backend, "onnxruntime")] == [
        MASKS,
        LOGITS,
    ]
    images = [scene(64, 64, colour=backend == NAME and seed % 2 == 1, seed=seed) for seed in range(6)]
    found = deploy.predict(images)
    assert any(one.mask.any() for one in found)
    for one, other in zip(found, floats.predict(images), strict=True):
        np.testing.assert_array_equal(one.masks, other.masks)
        assert one.lesions == other.lesions


def test_at_another_size_only_borders_may_differ(root: Path, scene: Scene) -> None:
    image = scene(300, 410, seed=2)
    mask = Segmenter.open(root, backend=NAME).predict(image).mask
    other = Segmenter.open(root).predict(image).mask
    assert mask.shape == (300, 410)
    assert 2 * (mask & other).sum() / (mask.sum() + other.sum()) > 0.97


def test_a_stream_serves_them_too(root: Path, scene: Scene) -> None:
    segmenter = Segmenter.open(root, backend=NAME)
    images = [scene(64, 64, seed=seed) for seed in range(4)]
    results = list(segmenter.stream(images, batch_size=2, timeout_s=60))
    for result, expected in zip(results, segmenter.predict(images), strict=True):
        assert result.prediction is not None
        np.testing.assert_array_equal(result.prediction.masks, expected.masks)


def test_what_needs_logits_says_that_there_are_none(root: Path, scene: Scene) -> None:
    prediction = Segmenter.open(root, backend=NAME).predict(scene(64, 64))
    for ask in (prediction.probabilities, lambda: prediction.margin, lambda: prediction.logits):
        with pytest.raises(InputError, match="image 0: has no logits, probability map or margin"):
            ask()
    assert prediction.to_dict()["margin"] is None


def test_colour_is_refused_by_the_form_for_gray(root: Path, scene: Scene) -> None:
    with pytest.raises(InputError, match="is a colour image, the network takes gray"):
        Segmenter.open(root, backend=GRAY).predict(scene(64, 64, colour=True))


def test_the_session_takes_pixels_alone(root: Path) -> None:
    bundle = Bundle.open(root)
    session = open_session(bundle, backend=GRAY)
    assert (session.input.dtype, session.input.channels, session.output) == ("uint8", 1, MASKS)
    with pytest.raises(InputError, match=r"batch is float32 .*, expected uint8 \(N, 1, 64, 64\)"):
        checked_infer(session, np.zeros((1, 1, 64, 64), np.float32), bundle.contract)
    with pytest.raises(
        BackendError, match=r"onnxruntime-deploy-gray on 'cpu' failed on a batch of shape \(1, 3"
    ):
        session.infer(np.zeros((1, 3, 64, 64), np.uint8))


def test_a_pixel_without_a_decision_never_becomes_a_mask(
    make_bundle: Maker, convert_bundle: Converter, tmp_path: Path, scene: Scene
) -> None:
    root = make_bundle(tmp_path / "bundle", poison=True)
    convert_bundle(root, "onnx-deploy")
    with pytest.raises(OutputError, match="returned 4096 pixels without a decision"):
        Segmenter.open(root, backend=NAME).predict(np.full((64, 64), 255, np.uint8))


def test_a_bundle_without_the_form_and_one_that_does_not_fit_are_refused(
    small_bundle: Path, make_bundle: Maker, convert_bundle: Converter, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="has no fp32 onnx-deploy artefact, it has onnx fp32"):
        Segmenter.open(small_bundle, backend=NAME)
    gray = make_bundle(tmp_path / "gray", Contract(height=64, width=64, mean=(0.4,), std=(0.3,)))
    convert_bundle(gray, "onnx-deploy")
    with pytest.raises(BundleError, match="has no fp32 onnx-deploy-gray artefact"):
        Segmenter.open(gray, backend=GRAY)
    bright, dark = (np.full((64, 64), value, np.uint8) for value in (250, 5))
    found = Segmenter.open(gray, backend=NAME, self_test=True).predict([bright, dark])
    assert [bool(one.mask[32, 32]) for one in found] == [True, False]


@pytest.mark.usefixtures("few_conformance_files")
def test_verify_and_predict_know_them(root: Path, tmp_path: Path, scene: Scene) -> None:
    result = CliRunner().invoke(verify, [str(root), "--device", "cpu", "--json"])
    checks = {check["backend"]: check for check in json.loads(result.stdout)["checks"]}
    assert {name: check["status"] for name, check in checks.items()} == dict.fromkeys(
        ("onnxruntime", NAME, GRAY), "passed"
    )
    assert (
        "3 golden images through 13 predictions: tensors equal bit for bit, no logits, 0 pixels"
        in checks[NAME]["detail"]
    )
    assert "2 golden images" in checks[GRAY]["detail"]  # one of the three is a colour image
    write_png(tmp_path / "a.png", scene(64, 64, seed=3))
    arguments = [str(root), str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--backend", NAME]
    refused = CliRunner().invoke(predict, [*arguments, "--probabilities"])
    assert isinstance(refused.exception, InputError)
    assert "onnxruntime-deploy gives masks alone, --probabilities expects logits" in str(refused.exception)
    assert not (tmp_path / "out").exists()
    done = CliRunner().invoke(predict, arguments)
    assert done.exit_code == 0, done.output
    (line,) = json.loads((tmp_path / "out/predictions.json").read_text())["images"]
    assert line["margin"] is None
    assert line["lesions"]
