"""A network that copies its input: the real ONNX Runtime has something to run, and every answer is known."""

from __future__ import annotations

from pathlib import Path

import onnx

from gpu_null import deploys, masks
from tumorseg_runtime.core.contract import Contract


def copy_graph(folder: Path) -> Path:
    """Images to logits, float32."""
    return _write(folder, "logits", onnx.TensorProto.FLOAT, masks.CONTRACT.channels, masks.CONTRACT)


def copy_bytes(folder: Path, planes: int) -> Path:
    """Pixels of so many planes to masks, uint8."""
    return _write(folder, "masks", onnx.TensorProto.UINT8, planes, deploys.CONTRACT)


def _write(folder: Path, output: str, kind: int, planes: int, contract: Contract) -> Path:
    shape = ["N", planes, contract.height, contract.width]
    ends = [onnx.helper.make_tensor_value_info(name, kind, shape) for name in ("image", output)]
    node = onnx.helper.make_node("Identity", ["image"], [output])
    graph = onnx.helper.make_graph([node], "copy", ends[:1], ends[1:])
    opset = onnx.helper.make_opsetid("", 18)
    path = folder / "copy.onnx"
    onnx.save(onnx.helper.make_model(graph, ir_version=10, opset_imports=[opset]), str(path))
    return path
