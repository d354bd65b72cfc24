"""What the runtime's tests share: a tiny bundle made without torch, and writers of odd image files."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result

from fakes.encoded import encoded_png, encoded_tiff
from tumorseg_runtime.bundle.bundle import (
    GOLDEN_FOLDER,
    INDEX,
    INDEX_HASH,
    Artefact,
    Bundle,
    FileRecord,
    Verdict,
    sha256_of,
)
from tumorseg_runtime.cli.predict import predict
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.images.read import write_png
from tumorseg_runtime.processing.preprocess import Preprocessor

SIZE = 64
BRIGHT = 110  # gray value from which on the tiny network sees a tumour, on flat areas
GAIN = 4.0


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., Path]:
    """Function that writes a sealed bundle into a folder: a network of one 3x3 convolution at 64x64, which
    calls bright areas a tumour, with golden logits computed in numpy."""
    return _make_bundle


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of `make_bundle` with its defaults: RGB, one class. Not to be changed."""
    return _make_bundle(tmp_path_factory.mktemp("bundles") / "small")


@pytest.fixture(scope="session")
def run_predict() -> Callable[..., Result]:
    """Function that runs `tumorseg predict` with these arguments."""
    return lambda *arguments: CliRunner().invoke(predict, [str(one) for one in arguments])


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Two images of one name, and one in colour."""
    root = tmp_path / "in"
    for name, size, colour in (
        ("a/1.png", (70, 50), False),
        ("b/1.png", (40, 90), False),
        ("b/2.png", (64, 64), True),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_png(root / name, _scene(*size, colour=colour, seed=5))
    return root


@pytest.fixture(scope="session")
def convert_bundle() -> Callable[[Path, str], None]:
    """Function that converts the network of a bundle of `make_bundle` to the format ncnn, mnn, openvino or
    onnx-deploy(-gray), and seals the bundle with that artefact added."""
    return _convert_bundle


@pytest.fixture(scope="session")
def reseal() -> Callable[[Path], Bundle]:
    """Function that writes a bundle's index again, over its files as they are now, and opens it."""

    def again(root: Path) -> Bundle:
        bundle = Bundle.read_index(root)
        seal(root, bundle.contract, bundle.artefacts, bundle.golden)
        return Bundle.open(root)

    return again


@pytest.fixture(scope="session")
def scene() -> Callable[..., npt.NDArray[np.uint8]]:
    """Function that draws a dark noisy image with bright discs: uint8 (H, W), or (H, W, 3) if `colour`."""
    return _scene


@pytest.fixture(scope="session")
def encode_png() -> Callable[..., bytes]:
    """Function that writes a PNG from packed rows, with chunks of one's own after the header."""
    return encoded_png


@pytest.fixture(scope="session")
def encode_tiff() -> Callable[..., bytes]:
    """Function that writes an uncompressed TIFF of any sample type and layout."""
    return encoded_tiff


def _scene(height: int, width: int, *, colour: bool = False, seed: int = 0) -> npt.NDArray[np.uint8]:
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    picture = random.uniform(20, 60, (height, width))
    for _ in range(2):
        centre_y, centre_x = random.uniform(0.25, 0.75, 2) * (height, width)
        picture[np.hypot(y - centre_y, x - centre_x) < min(height, width) / 7] += 150
    gray = picture.astype(np.uint8)
    return np.stack([gray, gray // 2 + 40, gray // 3 + 60], axis=2) if colour else gray


def _make_bundle(
    root: Path,
    contract: Contract | None = None,
    *,
    dtype: str = "float32",
    poison: bool = False,
    golden_error: float = 0.0,
    channels: int | None = None,
    batch: int | str = "N",
) -> Path:
    """poison: logits become NaN where the sum of the input is large. golden_error: added to PyTorch's logits.
    channels, batch, dtype: of the network's input, where they shall differ from the contract."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    contract = contract or Contract(height=SIZE, width=SIZE)
    inputs, classes = channels or contract.channels, len(contract.classes)
    kernel, bias = _weights(inputs, classes)
    kind = TensorProto.FLOAT16 if dtype == "float16" else TensorProto.FLOAT
    nodes = [helper.make_node("Conv", ["image", "kernel", "bias"], ["raw"], pads=[1, 1, 1, 1])]
    if poison:  # log of a negative number
        nodes += [
            helper.make_node("ReduceMean", ["image", "axes"], ["mean"], keepdims=1),
            helper.make_node("Neg", ["mean"], ["minus"]),
            helper.make_node("Log", ["minus"], ["log"]),
            helper.make_node("Mul", ["log", "zero"], ["nothing"]),
            helper.make_node("Add", ["raw", "nothing"], ["logits"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["raw"], ["logits"]))
    sides = [
        helper.make_tensor_value_info(name, kind, [batch, depth, contract.height, contract.width])
        for name, depth in (("image", inputs), ("logits", classes))
    ]
    constants = {"kernel": kernel.astype(dtype), "bias": bias.astype(dtype)}
    if poison:
        constants |= {"axes": np.array([1, 2, 3]), "zero": np.zeros(1, dtype)}
    graph = helper.make_graph(
        nodes, "tiny", [sides[0]], [sides[1]], [numpy_helper.from_array(v, k) for k, v in constants.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    (root / GOLDEN_FOLDER).mkdir(parents=True)
    onnx.save(model, root / "model.onnx")
    names = []
    for index, (height, width) in enumerate(((90, 70), (64, 64), (40, 130))):
        name = f"scene_{index}"
        pixels = _scene(height, width, colour=contract.channels == 3 and index == 2, seed=index)
        tensor = Preprocessor(contract)(pixels)
        logits = _convolve(tensor, *_weights(contract.channels, classes)) + np.float32(golden_error)
        write_png(root / GOLDEN_FOLDER / f"{name}.png", pixels)
        np.savez_compressed(root / GOLDEN_FOLDER / f"{name}.npz", tensor=tensor, logits=logits)
        names.append(name)
    verdict = Verdict("onnxruntime", "cpu", "unverified", "made by a test")
    seal(root, contract, (Artefact("model.onnx", "onnx", "fp32", None, {}, (verdict,)),), tuple(names))
    return root


def seal(root: Path, contract: Contract, artefacts: tuple[Artefact, ...], golden: tuple[str, ...]) -> None:
    """Write the index over all files that lie in `root`."""
    files = {
        path.relative_to(root).as_posix(): FileRecord(sha256_of(path), path.stat().st_size)
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != INDEX
    }
    bundle = Bundle(root, "tiny", contract, artefacts, golden, files, {}, {}, {})
    (root / INDEX).write_text(bundle.to_index(), encoding="utf-8")


def _convert_bundle(root: Path, format: str) -> None:
    bundle = Bundle.open(root)
    file, weights = _CONVERTERS[format](root)
    verdict = Verdict(format, "cpu", "unverified", "made by a test")
    artefact = Artefact(file, format, "fp32", None, {}, (verdict,), weights)
    seal(root, bundle.contract, (*bundle.artefacts, artefact), bundle.golden)


def _to_ncnn(root: Path) -> tuple[str, str]:
    """Written by hand: the format is a few lines of text, and the weights behind a flag of four bytes."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(root / "model.onnx")
    kernel, bias = (numpy_helper.to_array(tensor) for tensor in model.graph.initializer)
    convolution = f"0={len(bias)} 1=3 4=1 5=1 6={kernel.size}"
    lines = ["7767517", "2 2", "Input in0 0 1 in0", f"Convolution conv 1 1 in0 out0 {convolution}"]
    (root / "model.ncnn.param").write_text("\n".join(lines) + "\n")
    (root / "model.ncnn.bin").write_bytes(bytes(4) + kernel.tobytes() + bias.tobytes())
    return "model.ncnn.param", "model.ncnn.bin"


def _to_mnn(root: Path) -> tuple[str, None]:
    code = "import sys, _tools; sys.exit(not _tools.mnnconvert(['mnnconvert', *sys.argv[1:]]))"
    command = [
        sys.executable,
        "-c",
        code,
        "-f",
        "ONNX",
        "--modelFile",
        "model.onnx",
        "--MNNModel",
        "model.mnn",
    ]
    done = subprocess.run(command, cwd=root, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout
    return "model.mnn", None


def _to_openvino(root: Path) -> tuple[str, str]:
    from tumorseg_runtime.backends.openvino import load

    openvino = load()
    model = openvino.Core().read_model(root / "model.onnx")
    openvino.save_model(model, root / "model.xml", compress_to_fp16=False)
    return "model.xml", "model.bin"


def _to_deploy(root: Path, *, gray: bool = False) -> tuple[str, None]:
    """By the exporter's own pass, which needs onnx alone."""
    import onnx

    from tumorseg_export.onnx.passes.deploy import to_deploy

    file = f"model.deploy{'-gray' if gray else ''}.onnx"
    onnx.save(
        to_deploy(onnx.load(root / "model.onnx"), Bundle.open(root).contract, gray=gray).model, root / file
    )
    return file, None


_CONVERTERS: dict[str, Callable[[Path], tuple[str, str | None]]] = {
    "ncnn": _to_ncnn,
    "mnn": _to_mnn,
    "openvino": _to_openvino,
    "onnx-deploy": _to_deploy,
    "onnx-deploy-gray": functools.partial(_to_deploy, gray=True),
}


@pytest.fixture
def edit_index() -> Callable[[Path, Callable[[dict[str, Any]], None]], None]:
    """Function that changes the values in a bundle's index."""

    def edit(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
        values = json.loads((root / INDEX).read_text(encoding="utf-8"))
        change(values)
        (root / INDEX).write_text(json.dumps(values), encoding="utf-8")
        (root / INDEX_HASH).unlink(missing_ok=True)

    return edit


def _weights(channels: int, classes: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Kernel (K, C, 3, 3) that averages, bias (K,); the second class is the first one's opposite."""
    kernel = np.full((classes, channels, 3, 3), GAIN / (channels * 9))
    means, stds = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    bias = np.full(classes, -GAIN * ((BRIGHT / 255 - means[:channels]) / stds[:channels]).mean())
    sign = np.where(np.arange(classes) % 2, -1.0, 1.0)
    return kernel * sign[:, None, None, None], bias * sign


def _convolve(
    tensor: npt.NDArray[np.float32], kernel: npt.NDArray[np.float64], bias: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """The network in numpy: (C, H, W) -> float32 (K, H, W)."""
    height, width = tensor.shape[1:]
    padded = np.pad(tensor.astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    total = np.zeros((len(bias), height, width)) + bias[:, None, None]
    for y in range(3):
        for x in range(3):
            total += np.einsum("kc,chw->khw", kernel[:, :, y, x], padded[:, y : y + height, x : x + width])
    return total.astype(np.float32)
