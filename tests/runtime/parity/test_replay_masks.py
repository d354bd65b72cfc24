from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tumorseg_runtime import Bundle, Segmenter
from tumorseg_runtime.backends import open_session
from tumorseg_runtime.backends.onnxruntime_deploy import NAME
from tumorseg_runtime.core.errors import BundleError, ParityError
from tumorseg_runtime.parity.replay_masks import replay_masks
from tumorseg_runtime.parity.verify import REFUSED, verify_bundle

pytest.importorskip("onnxruntime")
Maker = Callable[..., Path]
Converter = Callable[[Path, str], None]
EditIndex = Callable[[Path, Callable[[dict[str, Any]], None]], None]


@pytest.fixture
def make_deploy(make_bundle: Maker, convert_bundle: Converter, tmp_path: Path) -> Callable[..., Bundle]:
    def make(format: str = "onnx-deploy", **options: Any) -> Bundle:
        root = make_bundle(tmp_path / "bundle", **options)
        convert_bundle(root, format)
        return Bundle.open(root)

    return make


def test_a_right_form_flips_nothing(make_deploy: Callable[..., Bundle]) -> None:
    bundle = make_deploy()
    report = replay_masks(bundle, open_session(bundle, backend=NAME), "deploy")
    assert report.passed
    assert [(image.tensor_differs, image.flipped, image.dice) for image in report.images] == [(0, 0, 1.0)] * 3


def test_flipped_pixels_are_a_breach_everywhere(make_deploy: Callable[..., Bundle]) -> None:
    bundle = make_deploy(golden_error=1.5)
    report = replay_masks(bundle, open_session(bundle, backend=NAME), "deploy")
    assert not report.passed
    assert any("pixels flipped, expected at most 2e-05" in line for line in report.breaches)
    assert any("Dice between the masks is 0." in line for line in report.breaches)
    with pytest.raises(ParityError, match="this device must not serve: onnxruntime-deploy cpu fp32: scene_"):
        Segmenter.open(bundle, backend=NAME, self_test=True)
    (check,) = verify_bundle(bundle.root, backend=NAME, device="cpu").checks
    assert check.status == REFUSED


def test_pixels_that_differ_are_a_breach(
    make_deploy: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_deploy()
    session = open_session(bundle, backend=NAME)
    darker: Callable[..., Any] = lambda image, *size: np.zeros(size, np.uint8)  # noqa: E731
    monkeypatch.setattr("tumorseg_runtime.processing.preprocess.resize", darker)
    report = replay_masks(bundle, session, "deploy")
    assert all(
        "values of the preprocessed tensor differ, expected 0" in line for line in report.breaches[::3]
    )
    assert all(image.tensor_differs for image in report.images)


def test_a_form_for_gray_needs_a_gray_image(
    make_deploy: Callable[..., Bundle], edit_index: EditIndex
) -> None:
    bundle = make_deploy("onnx-deploy-gray")
    session = open_session(bundle, backend="onnxruntime-deploy-gray")
    assert len(replay_masks(bundle, session, "gray").images) == 2
    edit_index(bundle.root, lambda index: index.update(golden=["scene_2"]))  # the one in colour
    with pytest.raises(BundleError, match="has no gray golden image, expected one to test gray"):
        replay_masks(Bundle.read_index(bundle.root), session, "gray")
