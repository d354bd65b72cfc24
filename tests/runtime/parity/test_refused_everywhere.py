"""What decides wrongly is refused by all that a device runs: self-test, verify, install.

Here with one bug and without torch; tests/benchmarks/mutants has one of every kind.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt
import pytest

from tumorseg_runtime import Segmenter
from tumorseg_runtime.core.errors import ParityError
from tumorseg_runtime.deployment.store import install
from tumorseg_runtime.inference.segmenter import door_of
from tumorseg_runtime.parity.verify import REFUSED, verify_bundle
from tumorseg_runtime.processing.postprocess import masks_from_logits as decide

Array = npt.NDArray[Any]


def upside_down(logits: Array, contract: Any, height: int, width: int) -> Array:
    return decide(logits, contract, height, width)[:, ::-1]


@pytest.mark.slow
@pytest.mark.usefixtures("few_conformance_files")
def test_masks_that_are_wrong_are_refused_by_all(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("tumorseg_runtime.inference.segmenter.masks_from_logits", upside_down)
    for level in ("quick", "full"):
        with pytest.raises(ParityError, match="this device must not serve"):
            Segmenter.open(small_bundle, self_test=level)
    (check,) = verify_bundle(small_bundle, door_of, backend="onnxruntime", device="cpu").checks
    assert check.status == REFUSED
    with pytest.raises(ParityError):
        install(tmp_path, small_bundle, test=lambda bundle: Segmenter.open(bundle, self_test="full"))
