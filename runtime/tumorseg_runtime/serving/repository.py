"""Model repositories for Triton: our runtime under its Python backend, and the plain ONNX file.

DIR/runtime/tumorseg/        config.pbtxt, 1/model.py, 1/bundle/ (sealed)
DIR/onnx/tumorseg_onnx/      config.pbtxt, 1/model.onnx: for Triton's ONNX Runtime and TensorRT backends
DIR/golden/, golden.json     golden images, and the masks that this machine's runtime makes of them
DIR/golden_client.py         asks a server for them, over HTTP or gRPC, and compares
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tumorseg_runtime.bundle.bundle import GOLDEN_FOLDER, INDEX, Artefact, Bundle
from tumorseg_runtime.core.errors import BundleError
from tumorseg_runtime.core.files import make_folder, staged, write_bytes, write_text
from tumorseg_runtime.core.records import to_json
from tumorseg_runtime.inference.segmenter import Segmenter
from tumorseg_runtime.serving.triton_model import BUNDLE, IMAGE, LESIONS, MARGIN, MASK, MASK_PNG, PIXELS

MODEL, ONNX_MODEL = "tumorseg", "tumorseg_onnx"
RUNTIME_FOLDER, ONNX_FOLDER = "runtime", "onnx"
SCRIPTS = ("golden_client.py", "serve.py")
DEPLOY, ONNX = "onnx-deploy", "onnx"
ONNX_FORMATS = (DEPLOY, ONNX)  # the first that the bundle has
_MODEL_PY = """\
# Triton's Python backend loads this class, which stands in the package tumorseg: its Python needs that.

from tumorseg_runtime.serving.triton_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
"""


@dataclasses.dataclass(frozen=True)
class Serving:
    """How the runtime's model serves.

    instances: Segmenters, a process each. batch: most images of one inference. queue: most requests that
    wait; further ones are refused at once. delay_us: how long a batch waits for others. parameters: of the
    model, as `triton_model` reads them.
    """

    instances: int
    batch: int
    queue: int
    delay_us: int
    parameters: Mapping[str, str]


def write_repository(bundle: Bundle, segmenter: Segmenter, serving: Serving, out: Path) -> Artefact | None:
    """Write everything into the new folder `out`; the artefact of the ONNX form, None where there is none.

    segmenter: makes the golden masks. Raises InputError where `out` cannot be made or is not empty.
    """
    artefact = next((one for kind in ONNX_FORMATS for one in bundle.artefacts if one.format == kind), None)
    with staged(out) as part:
        model = part / RUNTIME_FOLDER / MODEL
        _write_bundle(bundle, model / "1" / BUNDLE)
        write_text(model / "1" / "model.py", _MODEL_PY, durable=False)
        write_text(
            model / "config.pbtxt", runtime_config(len(bundle.contract.classes), serving), durable=False
        )
        if artefact is not None:
            _write_onnx(bundle, artefact, serving.batch, part / ONNX_FOLDER / ONNX_MODEL)
        _write_golden(bundle, segmenter, part)
        for script in SCRIPTS:
            text = importlib.resources.files(__package__).joinpath(f"{script}.txt").read_text("utf-8")
            write_text(part / script, text, durable=False)
    return artefact


def runtime_config(classes: int, serving: Serving) -> str:
    """`config.pbtxt` of the runtime's model."""
    parameters = [
        f'parameters {{ key: "{name}" value: {{ string_value: "{value}" }} }}'
        for name, value in serving.parameters.items()
    ]
    return "\n".join([
        f'name: "{MODEL}"',
        'backend: "python"',
        f"max_batch_size: {serving.batch}",
        "input [",
        f'  {{ name: "{IMAGE}" data_type: TYPE_STRING dims: [ 1 ] optional: true }},',
        f'  {{ name: "{PIXELS}" data_type: TYPE_UINT8 dims: [ -1, -1, -1 ] optional: true',
        "    allow_ragged_batch: true }",
        "]",
        "output [",
        f'  {{ name: "{MASK}" data_type: TYPE_UINT8 dims: [ {classes}, -1, -1 ] }},',
        f'  {{ name: "{MASK_PNG}" data_type: TYPE_STRING dims: [ {classes} ] }},',
        f'  {{ name: "{LESIONS}" data_type: TYPE_STRING dims: [ 1 ] }},',
        f'  {{ name: "{MARGIN}" data_type: TYPE_FP32 dims: [ 1 ] }}',
        "]",
        f"instance_group [ {{ count: {serving.instances} kind: KIND_CPU }} ]",
        "dynamic_batching {",
        f"  max_queue_delay_microseconds: {serving.delay_us}",
        f"  default_queue_policy {{ max_queue_size: {serving.queue} }}",
        "}",
        *parameters,
        "",
    ])  # fmt: skip


def onnx_config(bundle: Bundle, artefact: Artefact, batch: int) -> str:
    """`config.pbtxt` of the ONNX file under Triton's ONNX Runtime backend."""
    contract, deploy = bundle.contract, artefact.format == DEPLOY
    most = min(batch, artefact.max_batch or batch)
    size = f"{contract.height}, {contract.width}"
    kinds = ("TYPE_UINT8", "TYPE_UINT8", "mask") if deploy else ("TYPE_FP32", "TYPE_FP32", "logits")
    taken, given, name = kinds
    return "\n".join([
        f'name: "{ONNX_MODEL}"',
        'platform: "onnxruntime_onnx"',
        f"max_batch_size: {most}",
        f'input [ {{ name: "image" data_type: {taken} dims: [ {contract.channels}, {size} ] }} ]',
        f'output [ {{ name: "{name}" data_type: {given} dims: [ {len(contract.classes)}, {size} ] }} ]',
        "dynamic_batching { }",
        "",
    ])  # fmt: skip


def _write_bundle(bundle: Bundle, folder: Path) -> None:
    """A copy of the bundle, file by file as its seal says."""
    files = {INDEX: bundle.index, **bundle.beside()}
    for name in (*files, *bundle.files):
        path = folder / name
        make_folder(path.parent)
        write_bytes(path, files[name] if name in files else bundle.read(name), durable=False)


def _write_onnx(bundle: Bundle, artefact: Artefact, batch: int, folder: Path) -> None:
    if artefact.weights is not None:
        raise BundleError(f"{bundle.root}: {artefact.file} has weights of its own, expected one file")
    make_folder(folder / "1")
    write_bytes(folder / "1" / "model.onnx", bundle.read(artefact.file), durable=False)
    write_text(folder / "config.pbtxt", onnx_config(bundle, artefact, batch), durable=False)


def _write_golden(bundle: Bundle, segmenter: Segmenter, folder: Path) -> None:
    """Images, masks as uint8 (K, H, W), and how many pixels another processor may decide otherwise."""
    make_folder(folder / GOLDEN_FOLDER)
    images: list[dict[str, Any]] = []
    for name in bundle.golden:
        file = f"{GOLDEN_FOLDER}/{name}.png"
        write_bytes(folder / file, bundle.read(file), durable=False)
        prediction = segmenter.predict(folder / file)
        masks = prediction.masks.astype(np.uint8) * np.uint8(255)
        packed = io.BytesIO()
        np.save(packed, masks)
        write_bytes(folder / GOLDEN_FOLDER / f"{name}.npy", packed.getvalue(), durable=False)
        known = segmenter.gives_masks is False or prediction.close is not None
        close = math.ceil((prediction.margin or 0.0) * masks.size) if known else 0
        images.append({"image": file, "mask": f"{GOLDEN_FOLDER}/{name}.npy", "close_pixels": close})
    values = {"model": MODEL, "bundle": bundle.name, "sha256": bundle.digest(), "images": images}
    write_text(folder / "golden.json", to_json(values), durable=False)
