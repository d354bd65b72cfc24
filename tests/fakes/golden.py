"""The golden images through the door, for tests of one session."""

from __future__ import annotations

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.session import Session
from tumorseg_runtime.inference.segmenter import Segmenter
from tumorseg_runtime.parity.budget import BUDGETS
from tumorseg_runtime.parity.compare import ParityReport
from tumorseg_runtime.parity.reference import load_golden
from tumorseg_runtime.parity.replay import IN_ONE_LIST, replay


def golden_report(bundle: Bundle, session: Session, artefact: str, batch_size: int = 1) -> ParityReport:
    """All golden images of a bundle as one list, in batches of this size."""
    door = Segmenter(bundle.contract, session, batch_size)
    return replay(door, load_golden(bundle), BUDGETS[session.info.precision], IN_ONE_LIST, artefact=artefact)
