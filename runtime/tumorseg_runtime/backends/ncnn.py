"""ncnn: convolutions by Winograd's method on x86 and Arm CPUs, as exact as ONNX Runtime.

ncnn computes in FP16 or bfloat16 wherever the CPU can, unless told otherwise; here all of that is off. It
has no batch axis and checks no shape: images go one at a time, and nothing else than the contract's shape
goes in. It releases the GIL. Every call that runs at the same time needs its own working memory.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.backend import BackendSpec
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError, BundleError, InputError
from tumorseg_runtime.core.reading import sealed_memory
from tumorseg_runtime.core.session import InProcess, InputForm, SessionInfo, check_batch

if TYPE_CHECKING:
    import ncnn

INPUT, OUTPUT = "in0", "out0"  # the names that pnnx gives
REDUCED = ("use_fp16", "use_bf16", "use_int8")  # beginnings of the options that leave FP32


class NcnnSession(InProcess):
    """A `Session` on one ncnn network. Any number of threads may share it."""

    def __init__(self, net: ncnn.Net, contract: Contract, info: SessionInfo) -> None:
        self._net = net
        self._contract = contract
        self.input = InputForm()
        self.info = info

    def infer(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32 (N, C, H, W) -> float32 logits (N, K, H, W), image by image.

        Raises InputError for another shape, BackendError where ncnn fails.
        """
        check_batch(batch, self._contract)
        return np.stack([self._one(np.ascontiguousarray(image)) for image in batch])

    def _one(self, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32 (C, H, W) contiguous -> float32 (K, H, W)."""
        import ncnn

        # Mat looks at the array's memory without holding the array, and ignores its strides.
        extractor = self._net.create_extractor()
        status = extractor.input(INPUT, ncnn.Mat(image))
        if status == 0:
            status, logits = extractor.extract(OUTPUT)
        if status != 0:
            raise BackendError(
                f"ncnn failed on an image of shape {image.shape} (status {status}, see stderr): "
                "free memory, or check the bundle"
            )
        return np.array(logits, np.float32)  # a copy: the extractor's memory ends with it


def why_unavailable(device: str) -> str | None:
    """None where this machine can run the device ('cpu'), else the reason in short."""
    if device != "cpu":
        raise InputError(f"device is '{device}', expected cpu: the ncnn backend has no other")
    return None if importlib.util.find_spec("ncnn") else "ncnn is not installed"


def open_session(
    spec: BackendSpec, bundle: Bundle, device: str, precision: str, threads: int | None
) -> NcnnSession:
    """A session in exactly this precision; raises BackendError where it cannot be had, BundleError where the
    bundle has no such artefact or one that does not fit its contract."""
    artefact = bundle.artefact(spec.formats[0], precision)
    try:
        import ncnn
    except ImportError as error:
        raise BackendError(f"ncnn is installed but cannot be imported ({error}): install it again") from error
    net = ncnn.Net()
    _pin_fp32(net.opt)
    if threads is not None:
        net.opt.num_threads = threads
    graph, *weights = (bundle.read(name) for name in artefact.files)
    text = graph.decode("utf-8", "replace").replace("\0", " ")
    if net.load_param_mem(text) != 0 or len(weights) != 1 or not _load_weights(net, weights[0]):
        raise BackendError(
            f"ncnn {ncnn.__version__} cannot load {' and '.join(artefact.files)} (see stderr): "
            "check the bundle, or install the version of ncnn that its tools name"
        )
    session = NcnnSession(net, bundle.contract, SessionInfo(spec.name, device, precision, _versions(ncnn)))
    _check_fit(session, net, artefact.file, bundle.contract)
    return session


def _load_weights(net: ncnn.Net, weights: bytes) -> bool:
    """True where they fit the graph. ncnn takes weights from a path alone, and keeps a copy of them."""
    with sealed_memory(weights) as path:
        return bool(net.load_model(path) == 0)


def _pin_fp32(options: ncnn.Option) -> None:
    for name in dir(options):
        if name.startswith(REDUCED):
            setattr(options, name, False)
    options.use_vulkan_compute = False


def _versions(module: Any) -> dict[str, str]:
    return {"ncnn": str(module.__version__)}


def _check_fit(session: NcnnSession, net: ncnn.Net, file: str, contract: Contract) -> None:
    """Raise BundleError unless the network has one input and one output and makes the contract's logits.

    An ncnn file does not say its shapes: an image of zeros shows them.
    """
    names = (list(net.input_names()), list(net.output_names()))
    expected = (len(contract.classes), contract.height, contract.width)
    got: object = names
    if names == ([INPUT], [OUTPUT]):
        zeros = np.zeros((1, contract.channels, contract.height, contract.width), np.float32)
        got = session.infer(zeros).shape[1:]
    if got != expected:
        raise BundleError(
            f"{file} gives {got}, expected one output '{OUTPUT}' of {expected} from one input '{INPUT}': "
            "the file is not the network of its contract; export it again"
        )
