"""Changes that no input can show: each with its proof, and run all the same."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from tumorseg_benchmarks.mutants.bugs.files import stale_engine
from tumorseg_benchmarks.mutants.bugs.graph import attribute, constant, insert_before, of_type
from tumorseg_benchmarks.mutants.bugs.watch import seen_as
from tumorseg_benchmarks.mutants.mutant import Mutant, edited
from tumorseg_benchmarks.mutants.testbed import DEEPLAB


def other_nearest(model: onnx.ModelProto) -> None:
    """Nearest upsampling with half-pixel centres."""
    for node in of_type(model, "Resize"):
        attribute(node, "coordinate_transformation_mode", "half_pixel")
        attribute(node, "nearest_mode", "round_prefer_floor")


def pool_aligned(model: onnx.ModelProto) -> None:
    """The upsampling of the pooled branch with aligned corners."""
    attribute(of_type(model, "Resize")[0], "coordinate_transformation_mode", "align_corners")


def zero_padded_pool(model: onnx.ModelProto) -> None:
    """The max pool of the stem pads with zeros in place of minus infinity."""
    node = of_type(model, "MaxPool")[0]
    attribute(node, "pads", [0, 0, 0, 0])
    constant(model, "pool_pads", [0, 0, 1, 1, 0, 0, 1, 1], np.int64)
    constant(model, "pool_value", 0)
    insert_before(
        model, node, helper.make_node("Pad", [node.input[0], "pool_pads", "pool_value"], ["pooled"])
    )


MUTANTS = (
    Mutant(
        "nearest upsampling by 2 with half-pixel centres",
        "graph",
        edited(other_nearest),
        proof="Output sample i lies at i / 2 and is rounded down, or at (i + 0.5) / 2 - 0.5 and is rounded "
        "to the nearest. For i = 2k these are k and k - 0.25, for i = 2k + 1 k + 0.5 and k + 0.25: both take "
        "sample k, at i = 0 by the border.",
    ),
    Mutant(
        "align_corners flipped behind the global pooling",
        "graph",
        edited(pool_aligned),
        DEEPLAB,
        proof="The source has 1x1 samples. Every position is clamped to the only one, so each output is a "
        "mean of that value with weights that sum to 1.",
    ),
    Mutant(
        "padding value of the max pool: 0",
        "graph",
        edited(zero_padded_pool),
        proof="Its input comes from a ReLU, so no value is below 0. A window of 3x3 with padding 1 holds at "
        "least four real values, and their maximum is at least 0: a zero beside them changes no maximum.",
    ),
    Mutant(
        "stale engine cache",
        "files",
        stale_engine,
        proof="An engine is opened only where its record names this bundle's hash, so one of the bundle "
        "before is never read; a backend that needs one says that there is none.",
    ),
    Mutant(
        "input guard of an image with its channels exchanged",
        "watch",
        seen_as(lambda pixels: pixels[..., ::-1] if pixels.ndim == 3 else pixels),
        proof="Its statistics are those of the channels' sum, its colour their largest less their smallest: "
        "neither knows an order.",
    ),
)
