"""Runs a tumorseg bundle on a device: images in, masks at their original sizes out. Never needs torch.

    from tumorseg_runtime import Segmenter

    segmenter = Segmenter.open("bundles/latest", self_test=True)
    prediction = segmenter.predict("scan.png")

For research; not a medical device.
"""

from tumorseg_runtime.bundle import Bundle
from tumorseg_runtime.contract import Contract
from tumorseg_runtime.errors import (
    BackendError,
    BundleError,
    CheckFailedError,
    InputError,
    OutputError,
    ParityError,
    TumorsegError,
)
from tumorseg_runtime.postprocess import Lesion
from tumorseg_runtime.segmenter import Prediction, Segmenter

__all__ = [
    "BackendError",
    "Bundle",
    "BundleError",
    "CheckFailedError",
    "Contract",
    "InputError",
    "Lesion",
    "OutputError",
    "ParityError",
    "Prediction",
    "Segmenter",
    "TumorsegError",
]
