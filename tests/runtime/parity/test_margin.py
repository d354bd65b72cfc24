from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fakes.session import FakeSession
from tumorseg_runtime import Bundle, Contract, Segmenter
from tumorseg_runtime.core.errors import BundleError
from tumorseg_runtime.parity.budget import BUDGETS
from tumorseg_runtime.parity.compare import logit_scale
from tumorseg_runtime.parity.margin import Band, read_band
from tumorseg_runtime.parity.reference import load_golden
from tumorseg_runtime.processing.postprocess import close_share, probabilities

CONTRACT = Contract(height=64, width=64)


def certify(root: Path, errors: list[float], edit_index: Callable[..., None]) -> Bundle:
    """The bundle with a certificate that measured these errors; its seal no longer holds."""
    (root / "certificates").mkdir()
    images = [{"max_error": error} for error in errors]
    text = json.dumps({"reports": [{"images": images}, {"images": images[:1]}]})
    (root / "certificates/model.onnx.json").write_text(text)

    def passed(values: dict[str, Any]) -> None:
        verdict = {
            "backend": "x",
            "device": "cpu",
            "status": "passed",
            "detail": "certificates/model.onnx.json",
        }
        values["artefacts"][0]["parity"] = [verdict]

    edit_index(root, passed)
    return Bundle.read_index(root)


def test_the_band_is_twice_the_largest_certified_error(
    make_bundle: Callable[..., Path],
    edit_index: Callable[..., None],
    tmp_path: Path,
    reseal: Callable[[Path], Bundle],
) -> None:
    bundle = reseal(certify(make_bundle(tmp_path / "b"), [0.01, 0.03, 0.02], edit_index).root)
    band = read_band(bundle, "fp32")
    assert band == Band(0.06, "twice the largest logit error in certificates/model.onnx.json")
    (bundle.root / "certificates/model.onnx.json").write_text("{}")
    with pytest.raises(BundleError, match="is no longer as it was sealed"):
        read_band(bundle, "fp32")
    with pytest.raises(BundleError, match="is no certificate: lacks the field reports"):
        read_band(reseal(bundle.root), "fp32")


def test_without_a_certificate_parity_bounds_the_error(small_bundle: Path) -> None:
    bundle = Bundle.open(small_bundle)
    scale = logit_scale([item.logits for item in load_golden(bundle)])
    band = read_band(bundle, "fp32")
    assert band.logits == pytest.approx(2 * BUDGETS["fp32"].relative_error * scale)
    assert "no certificate" in band.source
    assert read_band(bundle, "fp16").logits > 40 * band.logits


def test_the_share_counts_decisions_near_the_threshold() -> None:
    contract = Contract(height=64, width=64, threshold=0.7)
    logits = np.full((1, 64, 64), 5, np.float32)
    logits[0, :16] = np.float32(contract.logit_threshold + 0.1)
    logits[0, 16:24] = np.float32(contract.logit_threshold - 0.3)
    assert close_share(logits, contract, 64, 64, 0.05) == 0
    assert close_share(logits, contract, 64, 64, 0.2) == 0.25
    assert close_share(logits, contract, 64, 64, 0.31) == 0.375
    assert close_share(logits, contract, 128, 64, 0.2) == pytest.approx(0.25, abs=0.01)


def test_a_backend_that_errs_within_the_band_flips_no_pixel_beyond_the_margin() -> None:
    random = np.random.default_rng(3)
    logits = random.normal(0, 2, (1, 64, 64)).astype(np.float32)
    for error in (0.01, 0.1, 0.5):
        other = logits + random.uniform(-error, error, logits.shape).astype(np.float32)
        mine, theirs = (
            Segmenter(CONTRACT, FakeSession(), band=Band(error, "test")).decide(frame, values)
            for frame, values in ((image(), logits), (image(), other))
        )
        assert mine.margin is not None
        assert 0 < (mine.masks != theirs.masks).mean() <= mine.margin


def image() -> Any:
    from tumorseg_runtime.images.frame import Frame

    return Frame("image", np.zeros((150, 90), np.uint8))


def test_probabilities_are_the_sigmoid_of_the_resized_logits() -> None:
    logits = np.array([[[0.0, 1.0], [-1.0, 3.0]]], np.float32)
    found = probabilities(logits, CONTRACT, 2, 2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits)), rtol=1e-6)
    extreme = probabilities(np.array([[[-1000.0, -90.0, 90.0, 1000.0]]], np.float32), CONTRACT, 1, 4)
    np.testing.assert_allclose(extreme, [[[0, 8.2e-40, 1, 1]]], rtol=0.01)
    assert probabilities(logits, CONTRACT, 7, 5).shape == (1, 7, 5)


def test_a_prediction_has_them_at_its_own_size(
    small_bundle: Path, scene: Callable[..., npt.NDArray[np.uint8]]
) -> None:
    prediction = Segmenter.open(small_bundle, threads=1).predict(scene(90, 130))
    maps = prediction.probabilities()
    assert maps.shape == (1, 90, 130)
    np.testing.assert_array_equal(maps >= 0.5, prediction.masks)
    assert prediction.margin is not None
    assert 0 <= prediction.margin < 0.1
    assert prediction.to_dict()["margin"] == prediction.margin
    bare = Segmenter(CONTRACT, FakeSession()).predict(scene(90, 130))
    assert bare.margin is None
