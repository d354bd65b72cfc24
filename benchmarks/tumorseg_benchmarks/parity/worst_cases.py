"""The worst image of an artefact, to look at: input, PyTorch's mask, the artefact's mask, flipped pixels."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from tumorseg_benchmarks.parity.parity import ReferenceSet
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.session import Session
from tumorseg_runtime.parity.compare import ParityReport
from tumorseg_runtime.processing.preprocess import Preprocessor

LONGEST = 224  # pixels of a picture's longer side in the report
QUALITY = 80
MARK = (225, 30, 30)  # RGB of what flips


def worst_pictures(
    session: Session, report: ParityReport, truth: ReferenceSet, contract: Contract
) -> dict[str, Any]:
    """Pictures as data URIs and figures of the report's worst image; what flips is drawn larger."""
    from tumorseg_train.report.page import image_uri

    name = report.worst.image
    index = [image.name for image in truth.images].index(name)
    pixels = truth.images[index].pixels()
    logits = session.infer(Preprocessor(contract)(pixels, name)[None])[0]
    theirs = truth.logits[index].max(axis=0) >= contract.logit_threshold
    ours = np.nan_to_num(logits, nan=-np.inf).max(axis=0) >= contract.logit_threshold
    small = cv2.resize(pixels, (contract.width, contract.height), interpolation=cv2.INTER_AREA)
    flipped = theirs != ours
    views = {
        "input": small,
        "pytorch": _mask(theirs),
        "artefact": _mask(ours),
        "flipped": _marked(small, flipped),
    }
    return {
        "image": name,
        "flipped": int(np.count_nonzero(flipped)),
        "pixels": flipped.size,
        "max_error": report.worst.max_error,
        "dice": report.worst.dice,
        "pictures": {
            key: image_uri(
                np.asarray(view, np.uint8),
                longest=LONGEST,
                jpeg_quality=None if key in ("pytorch", "artefact") else QUALITY,
            )
            for key, view in views.items()
        },
    }


def _mask(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    return mask.astype(np.uint8) * 255


def _marked(image: npt.NDArray[Any], flipped: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """The image in gray, darkened, with each flipped pixel as a square of 9 pixels."""
    gray = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    view = np.repeat((gray // 2)[:, :, None], 3, axis=2)
    grown = cv2.dilate(_mask(flipped), np.ones((9, 9), np.uint8))
    view[grown > 0] = MARK
    return np.asarray(view, np.uint8)
