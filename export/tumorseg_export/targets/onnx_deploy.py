"""Targets `onnx-deploy` and `onnx-deploy-gray`: pixels in, masks out (`tumorseg_export.onnx.passes.deploy`).

They give no logits, so they are proven here and not by replay: the graph with its logits beside its mask is
held against PyTorch like any artefact, and the file that is sealed must give that very mask.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from tumorseg_export.checkpoint.context import ExportContext, ExportResult
from tumorseg_export.onnx import export as onnx_export
from tumorseg_export.onnx.passes.deploy import MASK, NO_DECISION, to_deploy
from tumorseg_export.targets.validate_parity import BATCH_SIZES, FOLDER, refuse_breach, write_certificate
from tumorseg_runtime.backends.onnxruntime import open_file
from tumorseg_runtime.bundle.bundle import Artefact, Verdict
from tumorseg_runtime.core.errors import InputError, ParityError
from tumorseg_runtime.core.files import write_bytes
from tumorseg_runtime.parity.compare import BUDGETS, ParityReport, compare_image, logit_scale
from tumorseg_runtime.parity.reference import Golden
from tumorseg_runtime.processing.preprocess import resize

FORMAT, FORMAT_GRAY = "onnx-deploy", "onnx-deploy-gray"
FILES = {FORMAT: "model.deploy.onnx", FORMAT_GRAY: "model.deploy-gray.onnx"}
BACKEND, DEVICE = "onnxruntime", "cpu"
UInt8Array = npt.NDArray[np.uint8]


def make(context: ExportContext, folder: Path) -> ExportResult:
    """Write and prove `model.deploy.onnx`; needs `model.onnx` in the folder."""
    return make_form(context, folder, FORMAT)


def make_form(context: ExportContext, folder: Path, format: str) -> ExportResult:
    """Write and prove the file of either format.

    Raises InputError where the gray form is asked of a contract that is gray already or no golden image is
    gray, CheckFailedError for a network that it does not fit, ParityError where a mask differs too much.
    """
    contract, file, gray = context.contract, FILES[format], format == FORMAT_GRAY
    images = (*context.golden, *context.calibration)
    golden = [item for item in images if item.pixels.ndim == 2 or (contract.channels == 3 and not gray)]
    if gray and contract.channels == 1:
        raise InputError(f"target {format}: the contract is gray already: take {FORMAT} in its place")
    if not golden:
        raise InputError(f"target {format}: got no gray golden image, expected one to prove it: use --golden")
    artefact = Artefact(file, format, "fp32", None, onnx_export.tool_versions(), ())
    with tempfile.TemporaryDirectory(dir=folder) as name:
        with_logits = Path(name) / file
        channels = _write_both(context, folder, file, with_logits, gray=gray)
        write_certificate(folder, artefact, _validate(context, golden, folder / file, with_logits, channels))
    verdict = Verdict(BACKEND, DEVICE, "passed", f"{FOLDER}/{file}.json")
    sizes = {"layout": "NCHW", "height": contract.height, "width": contract.width}
    facts: dict[str, Any] = {
        format: {
            "input": {"dtype": "uint8", "channels": channels, **sizes},
            "output": {"dtype": "uint8", "channels": len(contract.classes), **sizes},
            "values": {"outside": 0, "inside": 1, "not finite": NO_DECISION},
        }
    }
    return ExportResult(dataclasses.replace(artefact, parity=(verdict,)), facts)


def _write_both(context: ExportContext, folder: Path, file: str, with_logits: Path, *, gray: bool) -> int:
    """Write the artefact, and the same graph that gives its logits, too; returns the channels it takes.

    The graphs end here: with them in memory the proof would set the peak of the whole export.
    """
    contract = context.contract
    model = to_deploy(onnx.load(folder / onnx_export.FILE), contract, gray=gray).model
    onnx_export.write_graph(model, folder / file, context, precision="fp32")
    sizes: list[int | str | None] = [
        onnx_export.BATCH, len(contract.classes), contract.height, contract.width,
    ]  # fmt: skip
    logits = onnx.helper.make_tensor_value_info(onnx_export.OUTPUT, onnx.TensorProto.FLOAT, sizes)
    model.graph.output.append(logits)
    write_bytes(with_logits, model.SerializeToString(), durable=False)
    return int(model.graph.input[0].type.tensor_type.shape.dim[1].dim_value)


def _validate(
    context: ExportContext, golden: list[Golden], path: Path, with_logits: Path, channels: int
) -> list[dict[str, Any]]:
    """The reports of the certificate, for each batch size; raises ParityError.

    golden: those of the bundle first; the others, for calibration, go one by one only.
    """
    contract = context.contract
    scale = logit_scale([item.logits for item in golden])
    pixels = np.stack([planes(item, context, channels) for item in golden])
    own = len({item.name for item in context.golden} & {item.name for item in golden})
    plan = {size: pixels if size == 1 else pixels[:own] for size in BATCH_SIZES}
    expected = _run_all(with_logits, (onnx_export.OUTPUT, MASK), plan)  # one session after the other
    sealed = _run_all(path, (MASK,), plan)
    reports = []
    for size in BATCH_SIZES:
        logits, masks = expected[size]
        images = []
        for item, candidate, mask, final in zip(golden, logits, masks, sealed[size][0], strict=False):
            decided = (candidate >= np.float32(contract.logit_threshold)).astype(np.uint8)
            if not np.array_equal(final, mask) or not np.array_equal(final, decided):
                raise ParityError(
                    f"{path.name}: {item.name}: {int(np.count_nonzero(final != decided))} pixels of the mask "
                    "are not what its logits say, expected 0: leave out its target"
                )
            images.append(
                compare_image(
                    item.name, item.logits, candidate, logit_threshold=contract.logit_threshold,
                    scale=scale, budget=BUDGETS["fp32"],
                )
            )  # fmt: skip
        versions = {"onnxruntime": version("onnxruntime")}
        report = ParityReport(
            path.name, BACKEND, DEVICE, "fp32", versions, BUDGETS["fp32"], scale, tuple(images)
        )
        refuse_breach(report, size)
        reports.append({"batch_size": size, **report.to_dict()})
    return reports


def _run_all(path: Path, outputs: Sequence[str], plan: dict[int, UInt8Array]) -> dict[int, list[Any]]:
    """For each batch size of the plan, the named outputs of all its images (N, C, H, W)."""
    session = open_file(path, DEVICE, None, arena=False)
    results = {}
    for size, pixels in plan.items():
        parts = [
            session.run(list(outputs), {onnx_export.INPUT: pixels[start : start + size]})
            for start in range(0, len(pixels), size)
        ]
        results[size] = [np.concatenate(part) for part in zip(*parts, strict=True)]
    return results


def planes(item: Golden, context: ExportContext, channels: int) -> UInt8Array:
    """A golden image as the graph takes it: uint8 (C, height, width), gray repeated where C is 3."""
    resized = resize(item.pixels, context.contract.height, context.contract.width)
    stacked = resized[None] if resized.ndim == 2 else resized.transpose(2, 0, 1)
    return np.ascontiguousarray(np.broadcast_to(stacked, (channels, *stacked.shape[1:])))
