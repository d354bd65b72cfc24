"""The worst image of an artefact, to look at: input, PyTorch's mask, the artefact's mask, flipped pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from tumorseg_benchmarks.parity.references import ReferenceSet
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.session import Session
from tumorseg_runtime.parity.compare import ParityReport
from tumorseg_runtime.processing.decision import decide
from tumorseg_runtime.processing.preprocess import Preprocessor

if TYPE_CHECKING:
    from tumorseg_train.report.case_view import PageCase

GROWN = 5  # side in pixels of the square as which a flipped pixel is drawn
BoolArray = npt.NDArray[np.bool_]


def draw_case(
    pixels: npt.NDArray[Any], theirs: BoolArray, ours: BoolArray, title: str, figures: str, state: str = ""
) -> PageCase:
    """pixels: as read, uint8 (H, W[, 3]). theirs, ours: PyTorch's and the artefact's mask, bool (h, w)."""
    from tumorseg_train.report.case_view import page_case

    size = (theirs.shape[1], theirs.shape[0])
    small = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    return page_case(title, figures, small, theirs, ours, state=state, grow=GROWN)


def worst_pictures(
    session: Session, report: ParityReport, truth: ReferenceSet, contract: Contract
) -> dict[str, Any]:
    """Pictures as data URIs and figures of the report's worst image; what flips is drawn larger."""
    name = report.worst.image
    index = [image.name for image in truth.images].index(name)
    pixels = truth.images[index].pixels()
    logits = session.infer(Preprocessor(contract)(pixels, name)[None])[0]
    theirs = np.asarray(decide(truth.logits[index], contract).any(axis=0))
    ours = np.asarray(decide(np.nan_to_num(logits, nan=-np.inf), contract).any(axis=0))
    case = draw_case(pixels, theirs, ours, name, "")
    return {
        "image": name,
        "flipped": int(np.count_nonzero(theirs != ours)),
        "pixels": theirs.size,
        "max_error": report.worst.max_error,
        "dice": report.worst.dice,
        "pictures": {"input": case.input, **case.layers},
    }
