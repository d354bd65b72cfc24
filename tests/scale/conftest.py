from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def shipped() -> Path:
    """The bundle of the network that ships."""
    return REPOSITORY / "train" / "tumorseg_train" / "demo" / "bundle"


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory, shipped: Path) -> Path:
    """60 images of several sizes in two folders, names that occur in both, one file that is damaged."""
    root = tmp_path_factory.mktemp("archive")
    golden = [cv2.imread(str(path)) for path in sorted((shipped / "golden").glob("*.png"))]
    for number in range(60):
        image = np.roll(golden[number % len(golden)], 7 * number, axis=number % 2)
        height, width = 300 + 10 * (number % 5), 420 - 12 * (number % 7)
        path = root / "ab"[number % 2] / f"{number // 2}.png"
        path.parent.mkdir(exist_ok=True)
        assert cv2.imwrite(str(path), cv2.resize(image, (width, height)))
    damaged = root / "a" / "17.png"
    damaged.write_bytes(damaged.read_bytes()[:4000])
    return root
