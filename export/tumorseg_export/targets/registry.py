"""The targets of `tumorseg export`, and the one place that names them."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from tumorseg_export.checkpoint.context import ExportContext, ExportResult, TargetModule
from tumorseg_runtime.backends import BACKENDS
from tumorseg_runtime.core.errors import InputError


@dataclasses.dataclass(frozen=True)
class Target:
    """How one target is made and proven.

    module: has `make(context, folder, **options) -> ExportResult`
        (`tumorseg_export.checkpoint.context.TargetModule`).
    validated_on: (backend, device) pairs under which the artefact must pass parity where the machine has
        them; the first pair must be there, or the export is refused.
    needs: targets whose artefacts it is made from, which must be chosen, too.
    options: what makes the variant, given to `make`.
    instead_of: the target whose place it takes for a network that this one does not fit, '' for none.
    must_run: False for what is made ahead of time for other machines: then the first pair may be missing, and
        the artefact is sealed as unverified.
    judged: True for what images of their own judge, and time (`tumorseg_export.targets.int8_acceptance`).
    packages: importable packages that only the making needs; the extra export brings them.
    cost: of the making beside that of a plain ONNX file: FP16 and INT8 search for the layers to keep.
    """

    module: str
    validated_on: tuple[tuple[str, str], ...]
    needs: tuple[str, ...] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    instead_of: str = ""
    must_run: bool = True
    judged: bool = False
    packages: tuple[str, ...] = ()
    cost: int = 1

    @property
    def extra(self) -> str:
        """The extra of tumorseg that brings the first backend of `validated_on`."""
        backend, device = self.validated_on[0]
        return BACKENDS[backend].devices[device] or ""

    def make(self, context: ExportContext, folder: Path) -> ExportResult:
        """Write the artefact's files into `folder`. The module is imported now: it may need packages that
        other targets do not."""
        module = cast(TargetModule, importlib.import_module(self.module))
        return module.make(context, folder, **self.options)


ONNX_RUNTIME = (("onnxruntime", "cpu"), ("onnxruntime", "cuda"), ("onnxruntime", "tensorrt"))

TARGETS = {
    "onnx": Target("tumorseg_export.onnx.export", ONNX_RUNTIME),
    "onnx-fp16": Target("tumorseg_export.targets.onnx_fp16", ONNX_RUNTIME, cost=20),
    "onnx-int8": Target(
        "tumorseg_export.targets.onnx_int8", ONNX_RUNTIME, needs=("onnx",), judged=True, cost=60
    ),
    "onnx-deploy": Target(
        "tumorseg_export.targets.onnx_deploy", (("onnxruntime-deploy", "cpu"),), needs=("onnx",)
    ),
    "onnx-deploy-gray": Target(
        "tumorseg_export.targets.onnx_deploy",
        (("onnxruntime-deploy-gray", "cpu"),),
        needs=("onnx",),
        options={"gray": True},
    ),
    "ncnn": Target("tumorseg_export.targets.ncnn", (("ncnn", "cpu"),), needs=("onnx",), packages=("pnnx",)),
    "mnn": Target("tumorseg_export.targets.mnn", (("mnn", "cpu"), ("mnn-exact", "cpu")), needs=("onnx",)),
    "mnn-exact": Target(
        "tumorseg_export.targets.mnn",
        (("mnn-exact", "cpu"),),
        needs=("onnx",),
        options={"file": "model.exact.mnn", "format": "mnn-exact"},
        instead_of="mnn",
    ),
    "openvino": Target(
        "tumorseg_export.targets.openvino",
        (("openvino", "cpu"), ("openvino", "gpu"), ("openvino", "npu")),
        needs=("onnx",),
    ),
    "openvino-bf16": Target(
        "tumorseg_export.targets.openvino",
        (("openvino", "cpu"), ("openvino", "gpu")),
        needs=("onnx",),
        options={"graph": "model.bf16.xml", "precision": "bf16"},
    ),
    "openvino-int8": Target(
        "tumorseg_export.targets.openvino",
        (("openvino", "cpu"), ("openvino", "gpu"), ("openvino", "npu")),
        needs=("onnx", "onnx-int8"),
        options={"graph": "model.int8.xml", "precision": "int8"},
        judged=True,
    ),
    "tensorrt-rtx": Target(
        "tumorseg_export.targets.tensorrt_rtx", (("tensorrt", "cuda"),), needs=("onnx-fp16",), must_run=False
    ),
}
DEFAULT = ("onnx", "onnx-fp16")


def choose(names: Sequence[str]) -> dict[str, Target]:
    """The targets of these names, in the registry's order.

    Raises InputError for an unknown or no name, and where one is made from another that is not among them.
    """
    unknown = [name for name in names if name not in TARGETS]
    if unknown or not names:
        got = ", ".join(f"'{name}'" for name in unknown) or "none"
        raise InputError(f"targets: got {got}, expected one or more of {', '.join(TARGETS)}")
    chosen = {name: target for name, target in TARGETS.items() if name in names}
    for name, target in chosen.items():
        if missing := [need for need in target.needs if need not in chosen]:
            raise InputError(f"target {name} is made from {', '.join(missing)}: add it to --targets")
    return chosen
