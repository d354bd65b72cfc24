"""Target `onnx`: the network as one ONNX file in FP32, with a batch axis that takes any size.

The file is a function of the run alone: no time, no path, no trace of the machine, so that exporting the
same run again gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tumorseg_export.checkpoint.context import ExportContext, ExportResult
from tumorseg_export.onnx.passes.constant_shapes import ConstantShapes
from tumorseg_export.onnx.passes.fold_constants import FoldConstants
from tumorseg_runtime.bundle.bundle import Artefact
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import CheckFailedError
from tumorseg_runtime.core.files import write_bytes

if TYPE_CHECKING:
    import onnx
    import torch

FILE = "model.onnx"
OPSET = 18
INPUT, OUTPUT, BATCH = "image", "logits", "batch"
EXAMPLE_BATCH = 2  # an example of one image can be frozen into the graph as a constant
DESCRIPTIONS = ("doc_string", "metadata_props")
TOOLS = ("torch", "onnx", "onnxscript")


def make(context: ExportContext, folder: Path) -> ExportResult:
    """Write `model.onnx`."""
    model = to_onnx(context.model, context.contract)
    write_onnx(model, folder / FILE, context, precision="fp32")
    return ExportResult(Artefact(FILE, "onnx", "fp32", None, tool_versions(), ()), {})


def tool_versions() -> dict[str, str]:
    """Versions of the packages that make an ONNX file."""
    return {name: version(name) for name in TOOLS}


def to_onnx(model: torch.nn.Module, contract: Contract) -> onnx.ModelProto:
    """The graph of a network in evaluation mode: float32 `image` (batch, C, H, W) -> float32 `logits`."""
    import torch

    if model.training:
        raise ValueError("the model is in training mode, expected model.eval()")
    example = torch.zeros(EXAMPLE_BATCH, contract.channels, contract.height, contract.width)
    program = torch.onnx.export(
        model,
        (example,),
        dynamo=True,
        external_data=False,
        opset_version=OPSET,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: torch.export.Dim(BATCH)},),
        verbose=False,
    )
    assert program is not None
    ConstantShapes()(program.model)
    FoldConstants()(program.model)
    return program.model_proto  # a new message, shared with nobody


def write_onnx(model: onnx.ModelProto, path: Path, context: ExportContext, *, precision: str) -> None:
    """Strip, name, check and write a graph; raises CheckFailedError where it is not what was asked for."""
    check_interface(model, context.contract, path.name)
    write_graph(model, path, context, precision=precision)


def write_graph(model: onnx.ModelProto, path: Path, context: ExportContext, *, precision: str) -> None:
    """`write_onnx` for a graph whose interface is not the contract's float one."""
    import onnx

    strip(model)
    model.graph.name = "tumorseg"
    model.producer_version = version("torch")  # without the build, such as +cpu, which changes no byte else
    facts = {**context.origin, "precision": precision}
    onnx.helper.set_model_props(
        model,
        {
            "tumorseg.contract": json.dumps(context.contract.to_dict()),
            "tumorseg.origin": json.dumps(facts, sort_keys=True),
        },
    )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CheckFailedError(
            f"{path.name}: onnx.checker refuses the graph ({str(error).splitlines()[0]}), "
            "expected a valid one: export with the tested versions (constraints.txt)"
        ) from error
    write_bytes(path, model.SerializeToString(deterministic=True), durable=False)


def strip(model: onnx.ModelProto) -> None:
    """Remove what describes the exporting machine and not the network: doc strings and metadata everywhere.

    Exported nodes carry stack traces with absolute paths (facts: 193 kB in one file).
    """
    for field in DESCRIPTIONS:
        _clear(model, field)
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        everything: Iterable[Any] = (
            graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info,
        )  # fmt: skip
        for item in everything:
            for field in DESCRIPTIONS:
                _clear(item, field)
        for node in graph.node:
            for attribute in node.attribute:
                attribute.ClearField("doc_string")
                graphs.extend(attribute.graphs)
                if attribute.HasField("g"):
                    graphs.append(attribute.g)


def _clear(message: Any, field: str) -> None:
    if field in message.DESCRIPTOR.fields_by_name:  # added to the format over time
        message.ClearField(field)


def check_interface(model: onnx.ModelProto, contract: Contract, name: str) -> None:
    """Pass if the graph declares exactly the contract's input and output; else CheckFailedError."""
    expected = {
        INPUT: (1, [BATCH, contract.channels, contract.height, contract.width]),
        OUTPUT: (1, [BATCH, len(contract.classes), contract.height, contract.width]),
    }
    got = {value.name: _declared(value) for value in (*model.graph.input, *model.graph.output)}
    if got != expected:
        raise CheckFailedError(
            f"{name}: declares {got}, expected {expected} (element type 1 is float32): "
            "export with the tested versions (constraints.txt)"
        )


def _declared(value: onnx.ValueInfoProto) -> tuple[int, Sequence[int | str]]:
    tensor = value.type.tensor_type
    return tensor.elem_type, [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
