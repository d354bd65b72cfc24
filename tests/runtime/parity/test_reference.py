from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import BundleError
from tumorseg_runtime.parity.reference import load_golden


def test_golden_images_are_read_as_written(small_bundle: Path) -> None:
    golden = load_golden(Bundle.open(small_bundle))
    assert [item.name for item in golden] == ["scene_0", "scene_1", "scene_2"]
    assert [item.pixels.shape for item in golden] == [(90, 70), (64, 64), (40, 130, 3)]
    for item in golden:
        assert item.tensor.shape == (3, 64, 64)
        assert item.logits.shape == (1, 64, 64)


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


@pytest.mark.fault
@pytest.mark.parametrize(("file", "damage"), DAMAGE)
def test_damage_is_a_bundle_error(
    small_bundle: Path,
    tmp_path: Path,
    file: str,
    damage: Callable[[Path], object],
    reseal: Callable[[Path], Bundle],
) -> None:
    copy = Path(shutil.copytree(small_bundle, tmp_path / "copy"))
    damage(copy / "golden" / file)
    with pytest.raises(BundleError, match="scene_1"):
        load_golden(Bundle.read_index(copy))
    if (copy / "golden" / file).exists():
        with pytest.raises(BundleError, match=r"scene_1: golden image is damaged"):
            load_golden(reseal(copy))
