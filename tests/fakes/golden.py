"""The golden images through the door, or through ONNX Runtime alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.backends.onnxruntime import open_file
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.session import Session
from tumorseg_runtime.inference.segmenter import Segmenter
from tumorseg_runtime.parity.budget import BUDGETS
from tumorseg_runtime.parity.compare import ParityReport
from tumorseg_runtime.parity.reference import load_golden
from tumorseg_runtime.parity.replay import IN_ONE_LIST, replay

if TYPE_CHECKING:
    from tumorseg_export.checkpoint.context import ExportContext


def golden_report(bundle: Bundle, session: Session, artefact: str, batch_size: int = 1) -> ParityReport:
    """All golden images of a bundle as one list, in batches of this size."""
    door = Segmenter(bundle.contract, session, batch_size)
    return replay(door, load_golden(bundle), BUDGETS[session.info.precision], IN_ONE_LIST, artefact=artefact)


def golden_logits(path: Path, context: ExportContext) -> npt.NDArray[np.float32]:
    """Logits (N, K, H, W) of a context's golden images under ONNX Runtime."""
    session = open_file(path, "cpu", 1)
    (logits,) = session.run(["logits"], {"image": np.stack([item.tensor for item in context.golden])})
    return np.asarray(logits)


def expected_logits(context: ExportContext) -> npt.NDArray[np.float32]:
    """PyTorch's logits (N, K, H, W) of a context's golden images."""
    return np.stack([item.logits for item in context.golden])
