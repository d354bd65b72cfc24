"""Runs a tumorseg bundle on a device: images in, masks at their original sizes out. Never needs torch.

    from tumorseg_runtime import Segmenter

    segmenter = Segmenter.open("bundles/latest", self_test=True)
    prediction = segmenter.predict("scan.png")

For research; not a medical device.
"""

import os

# From 1.29 on ONNX Runtime reports its use to its maker unless this is set before it is loaded: it keeps a
# device id and a queue in the user's cache and sends file names and hashes of models. A device must not.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import (
    BackendError,
    BundleError,
    CheckFailedError,
    InputError,
    OutputError,
    ParityError,
    TumorsegError,
)
from tumorseg_runtime.images.frame import Frame, Spacing
from tumorseg_runtime.images.frames import read_frames
from tumorseg_runtime.inference.prediction import Prediction
from tumorseg_runtime.inference.segmenter import Segmenter
from tumorseg_runtime.processing.postprocess import Lesion

__all__ = [
    "BackendError",
    "Bundle",
    "BundleError",
    "CheckFailedError",
    "Contract",
    "Frame",
    "InputError",
    "Lesion",
    "OutputError",
    "ParityError",
    "Prediction",
    "Segmenter",
    "Spacing",
    "TumorsegError",
    "read_frames",
]


def __getattr__(name: str) -> str:
    """`__version__`, which costs a start milliseconds where nobody asks."""
    if name != "__version__":
        raise AttributeError(f"module 'tumorseg_runtime' has no attribute '{name}'")
    import importlib.metadata

    return importlib.metadata.version("tumorseg")
