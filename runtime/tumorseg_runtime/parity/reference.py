"""Golden images: what PyTorch made of a few images at export, and their replay on this very device.

A bundle holds per golden image `golden/<name>.png` (the input) and `golden/<name>.npz` with `tensor`
float32 (C, H, W), what preprocessing must make of it, and `logits` float32 (K, H, W), PyTorch's answer.
"""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.bundle.bundle import GOLDEN_FOLDER, Bundle
from tumorseg_runtime.core.errors import BundleError, InputError
from tumorseg_runtime.core.session import Session, checked_infer
from tumorseg_runtime.images.read import read_image
from tumorseg_runtime.parity.compare import BUDGETS, ParityReport, compare_image, logit_scale
from tumorseg_runtime.processing.preprocess import Preprocessor

FloatArray = npt.NDArray[np.float32]
FOLDER = GOLDEN_FOLDER


@dataclasses.dataclass(frozen=True)
class Golden:
    """One golden image: pixels uint8 (H, W[, 3]), tensor float32 (C, h, w), logits float32 (K, h, w)."""

    name: str
    pixels: npt.NDArray[np.uint8]
    tensor: FloatArray
    logits: FloatArray


def load_golden(bundle: Bundle) -> list[Golden]:
    """All golden images of a bundle; raises BundleError where there is none or one is damaged."""
    if not bundle.golden:
        raise BundleError(f"{bundle.root}: holds no golden images, expected some: export it again")
    return [_load(bundle.root / FOLDER, name) for name in bundle.golden]


def _load(folder: Path, name: str) -> Golden:
    try:
        with (folder / f"{name}.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return Golden(name, read_image(folder / f"{name}.png"), arrays["tensor"], arrays["logits"])
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, InputError) as error:
        raise BundleError(
            f"{folder / name}: golden image is damaged ({error}): export the bundle again"
        ) from error


def replay(
    bundle: Bundle,
    session: Session,
    artefact: str,
    *,
    batch_size: int = 1,
    more: Sequence[Golden] = (),
) -> ParityReport:
    """Bytes -> tensor -> logits -> decisions of every golden image, compared with PyTorch's.

    more: images beside the bundle's own, for whoever has them.
    The session sees what this device's own preprocessing made, not the stored tensor.
    """
    golden = [*load_golden(bundle), *more]
    preprocess = Preprocessor(bundle.contract)
    tensors = [preprocess(item.pixels, item.name) for item in golden]
    logits: list[FloatArray] = []
    for start in range(0, len(golden), batch_size):
        batch = np.stack(tensors[start : start + batch_size]).astype(session.input.dtype, copy=False)
        logits.extend(checked_infer(session, batch, bundle.contract))
    scale = logit_scale([item.logits for item in golden])
    budget = BUDGETS[session.info.precision]
    images = tuple(
        compare_image(
            item.name,
            item.logits,
            candidate,
            logit_threshold=bundle.contract.logit_threshold,
            scale=scale,
            budget=budget,
            tensors=(item.tensor, tensor),
        )
        for item, tensor, candidate in zip(golden, tensors, logits, strict=True)
    )
    info = session.info
    return ParityReport(
        artefact, info.backend, info.device, info.precision, info.versions, budget, scale, images
    )
