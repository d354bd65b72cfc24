"""What a user would run without this project: PyTorch in its modes, and stock runtimes on a plain export.

Peers enter with `tumorseg bench --third_party` and need a run. The plain export is `torch.onnx.export` as its
documentation shows it, of the same network, and each stock runtime opens that file with its own defaults but
for the number of threads. Defaults may round: OpenVINO computes in bfloat16 where the CPU can, and pnnx
stores ncnn's weights as halves; each is held to the budget of what it does. Conversions lie in a
folder that lives as long as the process.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tumorseg_benchmarks.variants.variants import PYTORCH_BASELINES, STOCK, Variant
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError
from tumorseg_runtime.core.session import InProcess, InputForm, Session, SessionInfo

if TYPE_CHECKING:
    from tumorseg_train.networks.run import Run

FILE = "stock.onnx"
THIRD_PARTY_BASELINES = (
    Variant("PyTorch channels_last", "module", "pytorch-channels-last", "cpu", "fp32"),
    Variant("torch.compile", "module", "pytorch-compiled", "cpu", "fp32"),
    Variant("stock ONNX Runtime", STOCK, "stock-onnxruntime", "cpu", "fp32"),
    Variant("stock OpenVINO, its own precision", STOCK, "stock-openvino", "cpu", "fp32"),
    Variant("stock ncnn, FP16 weights", STOCK, "stock-ncnn", "cpu", "fp16"),
    Variant("stock MNN", STOCK, "stock-mnn", "cpu", "fp32"),
    Variant("stock OpenCV", STOCK, "stock-opencv", "cpu", "fp32"),
    Variant("PyTorch channels_last CUDA", "module", "pytorch-channels-last", "cuda", "fp32"),
    Variant("torch.compile CUDA", "module", "pytorch-compiled", "cuda", "fp32"),
    Variant("PyTorch CUDA graph", "module", "pytorch-cuda-graph", "cuda", "fp32"),
    Variant("PyTorch autocast FP16 channels_last CUDA", "module", "pytorch-autocast", "cuda", "fp16"),
)
PRECISIONS = {"f32": "fp32", "f16": "fp16", "bf16": "bf16"}  # OpenVINO's names -> ours
Infer = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
_files: dict[Path, tempfile.TemporaryDirectory[str]] = {}  # run -> the folder with its plain export


class StockSession(InProcess):
    """A stock runtime behind a function from one batch to its logits.

    precision: in which it computes by its defaults, which decides its budget of parity.
    """

    def __init__(
        self, infer: Infer, name: str, version: str, *, one_by_one: bool, precision: str = "fp32"
    ) -> None:
        self._infer = infer
        self._one_by_one = one_by_one
        self.input = InputForm()
        self.info = SessionInfo(name, "cpu", precision, {name.removeprefix("stock-"): version})

    def infer(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32 (N, C, H, W) -> float32 logits (N, K, H, W)."""
        if self._one_by_one:
            return np.concatenate([self._infer(np.ascontiguousarray(image[None])) for image in batch])
        return self._infer(batch)


def why_no_baseline(variant: Variant, run: Run | None) -> str | None:
    """None where the peer can be tried here, else the reason in short."""
    if run is None:
        return "no run was given (--run)"
    if variant.engine == "pytorch-compiled" and shutil.which("g++") is None and variant.device == "cpu":
        return "torch.compile needs g++, which is not installed"
    needed = {
        "stock-onnxruntime": ("onnxruntime", "onnxscript"), "stock-openvino": ("openvino", "onnxscript"),
        "stock-ncnn": ("ncnn", "pnnx", "onnxscript"), "stock-mnn": ("MNN", "onnxscript"),
        "stock-opencv": ("onnxscript",),
    }.get(variant.engine, ())  # fmt: skip
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    return f"{', '.join(missing)} is not installed (extra third-party)" if missing else None


def open_baseline(variant: Variant, run: Run, threads: int | None) -> Session:
    """A session of the peer; raises BackendError where its conversion fails."""
    if variant.engine in PYTORCH_BASELINES:
        return open_pytorch(variant, run)
    opener = {
        "stock-onnxruntime": _open_onnxruntime, "stock-openvino": _open_openvino,
        "stock-ncnn": _open_ncnn, "stock-mnn": _open_mnn, "stock-opencv": _open_opencv,
    }[variant.engine]  # fmt: skip
    return opener(_plain_export(run), run.contract, threads or 0)


def open_pytorch(variant: Variant, run: Run) -> Session:
    """PyTorch's session of a variant's mode and device."""
    import torch

    if variant.group == "gpu":
        from tumorseg_benchmarks.variants.pytorch_gpu import PyTorchGpuSession

        return PyTorchGpuSession(run.model(), variant.device, variant.engine)
    from tumorseg_benchmarks.variants.pytorch import PyTorchSession

    last = variant.engine == "pytorch-channels-last"
    memory = torch.channels_last if last else torch.contiguous_format
    compiled = variant.engine == "pytorch-compiled"
    return PyTorchSession(run.model(), variant.device, memory=memory, compiled=compiled)


def _plain_export(run: Run) -> Path:
    """The ONNX file of torch.onnx.export with a dynamic batch, made once for each run of a process."""
    if run.root not in _files:
        import torch

        folder = tempfile.TemporaryDirectory(prefix="tumorseg-baselines-")
        contract = run.contract
        example = torch.zeros(2, contract.channels, contract.height, contract.width)
        batch = torch.export.Dim("batch")
        with torch.inference_mode():
            program = torch.onnx.export(
                run.model().eval(), (example,), dynamo=True, dynamic_shapes=({0: batch},), verbose=False
            )
        assert program is not None  # without a file it returns the program
        program.save(str(Path(folder.name) / FILE))
        _files[run.root] = folder
    return Path(_files[run.root].name) / FILE


def _open_onnxruntime(file: Path, contract: Contract, threads: int) -> Session:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    version = onnxruntime.__version__

    def infer(batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.asarray(session.run(None, {name: batch})[0], np.float32)

    return StockSession(infer, "stock-onnxruntime", version, one_by_one=False)


def _open_openvino(file: Path, contract: Contract, threads: int) -> Session:
    from tumorseg_runtime.backends.openvino import load  # without its telemetry client

    openvino: Any = load()
    options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"} if threads else {}
    compiled = openvino.Core().compile_model(str(file), "CPU", options)

    precision = PRECISIONS[compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()]

    def infer(batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.array(compiled(batch)[0], np.float32)

    version = str(openvino.__version__)
    return StockSession(infer, "stock-openvino", version, one_by_one=False, precision=precision)


def _open_ncnn(file: Path, contract: Contract, threads: int) -> Session:
    import ncnn

    from tumorseg_export.targets.ncnn import pnnx_program

    shape = f"[1,{contract.channels},{contract.height},{contract.width}]f32"
    graph, weights = (file.with_name(f"stock.ncnn.{end}") for end in ("param", "bin"))
    if not graph.is_file():
        _convert([str(pnnx_program()), file.name, f"inputshape={shape}"], graph)
    net = ncnn.Net()
    if threads:
        net.opt.num_threads = threads
    if net.load_param(str(graph)) or net.load_model(str(weights)):
        raise BackendError(f"ncnn cannot load {graph.name}, expected what pnnx made to open")

    def infer(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        extractor = net.create_extractor()
        array = np.ascontiguousarray(image[0])
        extractor.input("in0", ncnn.Mat(array))
        return np.array(extractor.extract("out0")[1], np.float32)[None]

    # pnnx stores weights as halves unless it is told otherwise
    return StockSession(infer, "stock-ncnn", str(ncnn.__version__), one_by_one=True, precision="fp16")


def _open_mnn(file: Path, contract: Contract, threads: int) -> Session:
    import sys

    import MNN

    from tumorseg_export.targets.mnn import CONVERT

    made = file.with_name("stock.mnn")
    if not made.is_file():
        arguments = ["-f", "ONNX", "--modelFile", file.name, "--MNNModel", made.name, "--bizCode", "stock"]
        _convert([sys.executable, "-c", CONVERT, *arguments], made)
    interpreter = MNN.Interpreter(str(made))
    session = interpreter.createSession({"backend": "CPU", "numThread": threads or 1, "precision": "high"})
    given, made_logits = interpreter.getSessionInput(session), interpreter.getSessionOutput(session)
    shape = (1, contract.channels, contract.height, contract.width)
    if tuple(given.getShape()) != shape:
        interpreter.resizeTensor(given, shape)
        interpreter.resizeSession(session)

    def tensor(array: npt.NDArray[np.float32]) -> Any:
        return MNN.Tensor(array.shape, MNN.Halide_Type_Float, array, MNN.Tensor_DimensionType_Caffe)

    def infer(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        given.copyFrom(tensor(image))
        interpreter.runSession(session)
        host = tensor(np.empty((1, len(contract.classes), contract.height, contract.width), np.float32))
        made_logits.copyToHostTensor(host)
        return np.array(host.getNumpyData(), np.float32)

    return StockSession(infer, "stock-mnn", str(MNN.version()), one_by_one=True)


def _open_opencv(file: Path, contract: Contract, threads: int) -> Session:
    import cv2

    net = cv2.dnn.readNetFromONNX(str(file))

    def infer(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        before = cv2.getNumThreads()
        cv2.setNumThreads(threads or before)  # of the whole process: what else OpenCV does is not timed here
        try:
            net.setInput(image)
            return np.array(net.forward(), np.float32)
        finally:
            cv2.setNumThreads(before)

    return StockSession(infer, "stock-opencv", cv2.__version__, one_by_one=True)


def _convert(command: list[str], made: Path) -> None:
    done = subprocess.run(command, cwd=made.parent, capture_output=True, text=True, check=False)
    if done.returncode or not made.is_file():
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise BackendError(f"{Path(command[0]).name} did not make {made.name}: {last}")
