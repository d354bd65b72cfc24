"""Bugs of the deploy forms, in whose graphs normalisation and threshold lie."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from tumorseg_benchmarks.mutants.bugs.graph import of_type
from tumorseg_benchmarks.mutants.bugs.session import answered, made_up
from tumorseg_benchmarks.mutants.bugs.weights import weights
from tumorseg_benchmarks.mutants.mutant import Apply, Device, Mutant, patched, resealed
from tumorseg_benchmarks.mutants.testbed import BedNetwork
from tumorseg_export.onnx.passes.deploy import ONES, TABLE
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.processing.postprocess import resize_logits, resize_masks
from tumorseg_runtime.processing.preprocess import Preprocessor

FORM, GRAY = "onnx-deploy", "onnx-deploy-gray"
BACKENDS = {FORM: "onnxruntime-deploy", GRAY: "onnxruntime-deploy-gray"}
SEGMENTER = "tumorseg_runtime.inference.segmenter"

_planes = Preprocessor.planes  # as it is before anything is broken


def form(edit: Callable[[onnx.ModelProto], None], format: str = FORM) -> Apply:
    """A bug in the graph of a deploy form."""

    @contextlib.contextmanager
    def apply(network: BedNetwork, folder: Path) -> Iterator[Device]:
        artefact = network.bundle.artefact(format, "fp32")
        model = onnx.load(network.bundle.root / artefact.file)
        edit(model)
        bundle = resealed(network.bundle, artefact, model, folder)
        yield Device(bundle, file_changed=False, backend=BACKENDS[format], format=format)

    return apply


def under_form(apply: Apply) -> Apply:
    """A bug in code, met by a device that serves with the deploy form."""

    @contextlib.contextmanager
    def with_form(network: BedNetwork, folder: Path) -> Iterator[Device]:
        with apply(network, folder) as device:
            yield dataclasses.replace(device, backend=BACKENDS[FORM], format=FORM)

    return with_form


def initializer(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[onnx.ModelProto], None]:
    """Other values of a weight."""

    def edit(model: onnx.ModelProto) -> None:
        tensor = weights(model, name)
        values = np.asarray(change(numpy_helper.to_array(tensor)), np.float32)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))

    return edit


def tables_exchanged(model: onnx.ModelProto) -> None:
    """Red is looked up in blue's table, and blue in red's."""
    names = [f"{TABLE}_{channel}" for channel in (0, 2)]
    for node in of_type(model, "Gather"):
        if node.input[0] in names:
            node.input[0] = names[1 - names.index(node.input[0])]


def not_decided(model: onnx.ModelProto) -> None:
    """What is below the threshold is 1, and what is above is 0."""
    of_type(model, "GreaterOrEqual")[0].op_type = "Less"


def not_finite_is_tumour(model: onnx.ModelProto) -> None:
    """A weight is NaN, and what is not finite is taken for tumour in place of no decision."""
    head = weights(model, "segmentation_head.0.weight")
    values = numpy_helper.to_array(head).copy()
    values.flat[0] = np.nan
    head.CopyFrom(numpy_helper.from_array(values, head.name))
    limit = weights(model, "no_decision")
    limit.CopyFrom(numpy_helper.from_array(np.asarray(1, np.float32), limit.name))


def gray_kernel_halved(model: onnx.ModelProto) -> None:
    """The constant plane of the gray form's first convolution is lost."""
    name = next(one.name for one in model.graph.initializer if one.name.endswith("_gray"))
    initializer(name, lambda values: values * np.array([1, 0], np.float32)[:, None, None])(model)


def nearest(masks: np.ndarray, contract: Contract, height: int, width: int) -> np.ndarray:
    """Masks enlarged by the nearest pixel."""
    rows, columns = (np.arange(n) * m // n for n, m in zip((height, width), masks.shape[1:], strict=True))
    return np.asarray(masks[:, rows][:, :, columns], np.bool_)


def any_part(masks: np.ndarray, contract: Contract, height: int, width: int) -> np.ndarray:
    """A pixel that any part of the mask touches is tumour."""
    return np.asarray(resize_logits(masks.astype(np.float32), height, width) > 0)


def resized(rule: Callable[[np.ndarray, Contract, int, int], np.ndarray]) -> Apply:
    """Another resize of the form's masks."""
    return under_form(patched((f"{SEGMENTER}.resize_masks", rule)))


MUTANTS = tuple(
    Mutant(name, "deploy", apply)
    for name, apply in (
        ("deploy form: no threshold in the graph", form(initializer("threshold", lambda one: one - 50))),
        ("deploy form: threshold of probabilities", form(initializer("threshold", lambda one: one + 0.5))),
        ("deploy form: tables of red and blue exchanged", form(tables_exchanged)),
        (
            "deploy form: table not divided by 255",
            form(initializer(f"{TABLE}_1", lambda one: one * 255)),
        ),
        ("deploy form: decision inverted", form(not_decided)),
        ("deploy form: no decision taken for tumour", form(not_finite_is_tumour)),
        (
            "deploy form: no decision where a logit is large",
            form(initializer("largest_number", lambda one: one * 0 + 0.1)),
        ),
        ("gray form: constant plane lost", form(gray_kernel_halved, GRAY)),
        ("gray form: ones are zeros", form(initializer(ONES, lambda one: one * 0), GRAY)),
        ("gray form: table not divided by 255", form(initializer(TABLE, lambda one: one * 255), GRAY)),
        ("deploy form: lesion of five pixels made up", under_form(answered(made_up))),
        ("deploy form: answers reversed", under_form(answered(lambda found: found[::-1]))),
        ("deploy form: mask of the nearest pixel", resized(nearest)),
        ("deploy form: mask of every pixel touched", resized(any_part)),
        ("deploy form: mask mirrored", resized(lambda *of: resize_masks(*of)[:, :, ::-1])),
        ("deploy form: mask at the network's size", resized(lambda masks, *rest: masks.astype(np.bool_))),
        (
            "deploy form: planes in the order B, G, R",
            under_form(
                patched(
                    (
                        "tumorseg_runtime.processing.preprocess.Preprocessor.planes",
                        lambda self, image, channels, name="image": np.ascontiguousarray(
                            _planes(self, image, channels, name)[::-1]
                        ),
                    )
                )
            ),
        ),
    )
)
