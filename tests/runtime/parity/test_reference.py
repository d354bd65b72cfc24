from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fakes.session import FakeSession
from tumorseg_runtime.backends import open_session
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import BundleError
from tumorseg_runtime.parity.reference import load_golden, replay


def test_golden_images_are_read_as_written(small_bundle: Path) -> None:
    golden = load_golden(Bundle.open(small_bundle))
    assert [item.name for item in golden] == ["scene_0", "scene_1", "scene_2"]
    assert [item.pixels.shape for item in golden] == [(90, 70), (64, 64), (40, 130, 3)]
    for item in golden:
        assert item.tensor.shape == (3, 64, 64)
        assert item.logits.shape == (1, 64, 64)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_the_right_network_passes(small_bundle: Path, batch_size: int) -> None:
    bundle = Bundle.open(small_bundle)
    report = replay(bundle, open_session(bundle), "model.onnx", batch_size=batch_size)
    assert report.passed, report.breaches
    assert len(report.images) == 3
    assert [image.tensor_differs for image in report.images] == [0, 0, 0]
    assert 0 < report.worst.max_error < 1e-4  # another order of sums than numpy's
    assert (report.backend, report.device, report.precision) == ("onnxruntime", "cpu", "fp32")
    assert "onnxruntime" in report.versions


def test_another_network_fails(small_bundle: Path) -> None:
    session = FakeSession(gain=1.0)
    report = replay(Bundle.open(small_bundle), session, "fake", batch_size=2)
    assert not report.passed
    assert session.batches == [2, 1]


def test_preprocessing_that_differs_fails(small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tumorseg_runtime.processing import preprocess

    real = preprocess.resize
    monkeypatch.setattr(preprocess, "resize", lambda *args: np.maximum(real(*args), 40))
    bundle = Bundle.open(small_bundle)
    report = replay(bundle, open_session(bundle), "model.onnx")
    assert not report.passed
    assert "values of the preprocessed tensor differ" in report.breaches[0]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


DAMAGE: list[tuple[str, Callable[[Path], object]]] = [
    ("scene_1.npz", cut),
    ("scene_1.npz", lambda path: path.write_bytes(b"")),
    ("scene_1.npz", lambda path: np.savez(path, tensor=np.zeros(3))),
    ("scene_1.npz", lambda path: path.unlink()),
    ("scene_1.png", cut),
    ("scene_1.png", lambda path: path.unlink()),
]


@pytest.mark.parametrize(("file", "damage"), DAMAGE)
def test_damage_is_a_bundle_error(
    small_bundle: Path, tmp_path: Path, file: str, damage: Callable[[Path], object]
) -> None:
    copy = Path(shutil.copytree(small_bundle, tmp_path / "copy"))
    damage(copy / "golden" / file)
    with pytest.raises(BundleError, match="scene_1"):
        load_golden(Bundle.read_index(copy))
