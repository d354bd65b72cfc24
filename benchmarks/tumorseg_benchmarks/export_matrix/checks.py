"""What a network of the export matrix must pass: its weights alone say what it is, and its graph is valid and
computes the same everywhere."""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib.util
import io
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import onnx
import torch

from tumorseg_benchmarks.export_matrix.cases import Case
from tumorseg_export.checkpoint.state_fit import fitting_network
from tumorseg_export.onnx.export import INPUT, OUTPUT, check_interface, strip, to_onnx
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import CheckFailedError, InputError
from tumorseg_runtime.core.files import write_bytes
from tumorseg_runtime.core.records import Format
from tumorseg_train.networks.models import build_model

TOOLS = ("torch", "segmentation-models-pytorch", "timm", "onnx", "onnxruntime", "openvino", "polygraphy")
BATCH = 2
TOLERANCE = 5e-4  # of the logits' standard deviation
Logits = npt.NDArray[np.float32]
PASSED, REFUSED, FAILED = "passed", "refused", "failed"
NOT_MADE = "not made: "
_LINT = Format("report of polygraphy check lint", "run the case again")


class SkippedError(Exception):
    """A check that this machine cannot make, and why."""


class Built:
    """A case's network with seeded weights, images for it, PyTorch's logits of them, and its graph's file."""

    def __init__(self, case: Case, folder: Path) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model = build_model(
                case.architecture, case.encoder, channels=case.channels, classes=case.classes
            )
            stir_statistics(self.model)
            self.images = torch.randn(BATCH, case.channels, *case.size)
        self.case = case
        self.logits = run_torch(self.model.eval(), self.images)
        self.file = folder / f"{case.name}.onnx"

    @functools.cached_property
    def exact(self) -> Logits:
        """The logits in float64: those of one MANet in float32 are 3e-4 standard deviations from them."""
        return run_torch(copy.deepcopy(self.model).double(), self.images.double())


def stir_statistics(model: torch.nn.Module) -> None:
    """Norms that do something: running statistics of a fresh network are 0 and 1."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d) and module.running_mean is not None:
            torch.nn.init.normal_(module.running_mean, 0, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]


def run_torch(model: torch.nn.Module, images: torch.Tensor) -> Logits:
    """Logits (N, classes, H, W)."""
    with torch.inference_mode():
        logits: Logits = model(images).numpy()
    return logits


def read_back(network: Built) -> None:
    """The state dict alone gives the network: no option is said."""
    case, model = network.case, network.model
    fitted = fitting_network(
        network.file, model.state_dict(), case.architecture, case.encoder, {}, lambda _: None
    )
    if fitted.options or (fitted.channels, fitted.classes) != (case.channels, case.classes):
        raise CheckFailedError(
            f"read as {fitted.channels} channels, {fitted.classes} classes, {fitted.options}"
        )
    compare(run_torch(fitted.model, network.images), network)


def checker(network: Built) -> None:
    """The exported graph declares the contract's interface and passes onnx.checker with shape inference."""
    case = network.case
    names = tuple(f"class {number}" for number in range(case.classes))
    contract = Contract(*case.size, (0.5,) * case.channels, (0.25,) * case.channels, classes=names)
    graph = to_onnx(network.model, contract)
    check_interface(graph, contract, network.file.name)
    strip(graph)
    onnx.checker.check_model(graph, full_check=True)
    write_bytes(network.file, graph.SerializeToString(), durable=False)


def reference(network: Built) -> None:
    """ONNX's own reference evaluator, on one image."""
    from onnx.reference import ReferenceEvaluator

    (logits,) = ReferenceEvaluator(str(network.file)).run([OUTPUT], {INPUT: network.images[:1].numpy()})
    compare(np.asarray(logits), network)


def onnxruntime_plain(network: Built) -> None:
    """ONNX Runtime, the graph as it is."""
    _onnxruntime(network, "ORT_DISABLE_ALL")


def onnxruntime_optimised(network: Built) -> None:
    """ONNX Runtime with all of its optimisation."""
    _onnxruntime(network, "ORT_ENABLE_ALL")


def _onnxruntime(network: Built, level: str) -> None:
    onnxruntime = _needs("onnxruntime", "cpu")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(network.file), options, ["CPUExecutionProvider"])
    compare(session.run([OUTPUT], {INPUT: network.images.numpy()})[0], network)


def openvino(network: Built) -> None:
    """OpenVINO's CPU plug-in, in float32."""
    core = _needs("openvino", "openvino").Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(network.file), "CPU", settings)
    compare(compiled({INPUT: network.images.numpy()})[0], network)


def lint(network: Built) -> None:
    """Polygraphy's lint: no node at fault, no input or tensor that nobody reads."""
    os.environ["POLYGRAPHY_AUTOINSTALL_DEPS"] = "0"
    for package in ("polygraphy", "onnx_graphsurgeon"):
        _needs(package, "lint")
    report = network.file.with_suffix(".lint.json")
    words = ["polygraphy", "check", "lint", str(network.file), "-o", str(report)]
    with mock.patch.object(sys, "argv", words), warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")  # of its own old calls
        _needs("polygraphy.tools", "lint").main()  # in this process: another would import for three seconds
    entries = _LINT.read(report)["lint_entries"]
    report.unlink()
    if entries:
        raise CheckFailedError("; ".join(str(entry["message"]) for entry in entries[:3]))


ONCE = "reference"  # for each pair of architecture and encoder: it computes convolutions in Python
CHECKS: dict[str, Callable[[Built], None]] = {
    "read back": read_back,
    "checker": checker,
    "reference": reference,
    "onnxruntime": onnxruntime_plain,
    "optimised": onnxruntime_optimised,
    "openvino": openvino,
    "lint": lint,
}


def _needs(package: str, extra: str) -> Any:
    if importlib.util.find_spec(package) is None:
        raise SkippedError(f"{package} is not installed: pip install 'tumorseg[{extra}]'")
    return importlib.import_module(package)


def compare(got: Logits, network: Built) -> None:
    """Pass if the logits, of the first images or all, are PyTorch's in float32 or float64, else
    CheckFailedError."""
    expected = network.logits[: len(got)]
    if got.shape != expected.shape:
        raise CheckFailedError(f"logits have shape {got.shape}, expected {expected.shape}")
    unit = float(network.logits.std())
    error = float(np.abs(got - expected).max()) / unit
    if not error <= TOLERANCE:  # also where it is no number
        error = float(np.abs(got - network.exact[: len(got)]).max()) / unit
    if not error <= TOLERANCE:
        raise CheckFailedError(
            f"logits differ by {error:.2g} of their standard deviation, expected {TOLERANCE}"
        )


def run(case: Case, folder: Path) -> dict[str, Any]:
    """The case's record: status, reason, seconds, and of each check '' (passed), its fault, or NOT_MADE."""
    started = time.perf_counter()
    checks: dict[str, str] = {}
    try:
        network = Built(case, folder)
    except InputError as error:
        status, reason = REFUSED, str(error)
    else:
        status, reason = PASSED, ""
        for name, check in CHECKS.items():
            if name == ONCE and not case.first:
                continue
            try:
                with _quiet():
                    check(network)
            except SkippedError as error:
                checks[name] = NOT_MADE + str(error)
            except Exception as error:  # noqa: BLE001 - each fault of the tools belongs in the table
                checks[name] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
                status, reason = FAILED, reason or f"{name}: {checks[name]}"
                if name == "checker":
                    break  # no graph
            else:
                checks[name] = ""
        network.file.unlink(missing_ok=True)
    seconds = round(time.perf_counter() - started, 1)
    return {"case": vars(case), "status": status, "reason": reason, "checks": checks, "seconds": seconds}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What torch's exporter and Polygraphy print is no result."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
