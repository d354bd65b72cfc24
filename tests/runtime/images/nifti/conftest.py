"""NIfTI volumes for the tests, made with nibabel; without it (extra nifti) what uses them is skipped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

Array = npt.NDArray[Any]
Volume = Callable[..., Path]


@pytest.fixture(scope="session")
def volume() -> Volume:
    """Function that writes a volume: values (X, Y, Z), an affine, and fields of the header, set last."""
    pytest.importorskip("nibabel", reason="nibabel is not installed (extra nifti)")
    return _write


@pytest.fixture(scope="session")
def blobs() -> Callable[..., Array]:
    """Function that draws int16 (X, Y, Z): smooth noise with bright and dark parts, which differ by slice."""
    return _blobs


def _write(
    path: Path, values: Array, affine: Array | None = None, *, kind: Any = None, **fields: Any
) -> Path:
    import gzip

    import nibabel

    image = nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine, dtype=kind)
    if "scl_slope" in fields:  # nibabel takes it for its own, and writes what it computes
        header = image.header.copy()
        header.set_data_dtype(values.dtype)
        data = values.tobytes(order="F")
    else:
        header = image.header
        data = image.to_bytes()[352:]
    header["vox_offset"] = 352
    for name in ("scl_slope", "scl_inter"):
        if not np.isfinite(header[name]):
            header[name] = 0
    for name, value in fields.items():
        header[name] = value
    content = header.binaryblock + b"\0" * 4 + data
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def _blobs(width: int, height: int, slices: int, seed: int = 0) -> Array:
    import cv2

    random = np.random.default_rng(seed)
    planes = [
        cv2.GaussianBlur(random.normal(size=(height, width)).astype(np.float32), (0, 0), 4)
        for _ in range(slices)
    ]
    return np.asarray(np.stack(planes, axis=-1).swapaxes(0, 1) * 8000 - 500, np.int16)
