"""What decides wrongly is refused by all that a device runs: self-test, verify, install."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tumorseg_runtime import Segmenter
from tumorseg_runtime.backends.onnxruntime_sessions import OnnxRuntimeSession
from tumorseg_runtime.core.errors import ParityError
from tumorseg_runtime.core.session import MASKS
from tumorseg_runtime.deployment.store import install
from tumorseg_runtime.inference.segmenter import door_of
from tumorseg_runtime.parity.verify import REFUSED, verify_bundle
from tumorseg_runtime.processing.postprocess import masks_from_logits as decide

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.slow
Array = npt.NDArray[Any]


def sigmoid_twice(logits: Array, contract: Any, height: int, width: int) -> Array:
    once = 1 / (1 + np.exp(-logits))
    return np.asarray(decide(1 / (1 + np.exp(-once)) - 0.5, contract, height, width))


def upside_down(logits: Array, contract: Any, height: int, width: int) -> Array:
    return decide(logits, contract, height, width)[:, ::-1]


def refused_everywhere(root: Path, store: Path, backend: str = "onnxruntime") -> None:
    for level in ("quick", "full"):
        with pytest.raises(ParityError, match="this device must not serve"):
            Segmenter.open(root, backend=backend, self_test=level)
    (check,) = verify_bundle(root, door_of, backend=backend, device="cpu").checks
    assert check.status == REFUSED
    with pytest.raises(ParityError):
        install(store, root, test=lambda bundle: Segmenter.open(bundle, backend=backend, self_test="full"))


@pytest.mark.parametrize("bug", [sigmoid_twice, upside_down])
def test_masks_that_are_wrong_are_refused_by_all(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bug: Callable[..., Array]
) -> None:
    monkeypatch.setattr("tumorseg_runtime.inference.segmenter.masks_from_logits", bug)
    refused_everywhere(small_bundle, tmp_path)


@pytest.mark.usefixtures("few_conformance_files")
def test_a_reversed_batch_is_refused_by_all(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Segmenter.submit

    def reverse(
        self: Segmenter, prepared: Sequence[Array], *, timeout_s: float | None = None
    ) -> Callable[[], Array]:
        answers = real(self, prepared, timeout_s=timeout_s)
        return lambda: np.ascontiguousarray(answers()[::-1])

    monkeypatch.setattr(Segmenter, "submit", reverse)
    refused_everywhere(small_bundle, tmp_path)


@pytest.mark.usefixtures("few_conformance_files")
def test_a_lesion_of_five_pixels_made_up_by_a_deploy_form_is_refused_by_all(
    make_bundle: Callable[..., Path],
    convert_bundle: Callable[[Path, str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = make_bundle(tmp_path / "bundle")
    convert_bundle(root, "onnx-deploy")
    real = OnnxRuntimeSession.infer

    def made_up(self: OnnxRuntimeSession, batch: Array) -> Array:
        masks = real(self, batch).copy()
        if self.output == MASKS:
            masks[:, :, 2, 2:7] = 1  # in a corner, where PyTorch says no
        return masks

    monkeypatch.setattr(OnnxRuntimeSession, "infer", made_up)
    refused_everywhere(root, tmp_path / "store", "onnxruntime-deploy")
