"""Small things that tests of every floor share: images, a run and a bundle, made once for a source state."""

from __future__ import annotations

import functools
import importlib.util
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from fakes.guard import guarded_in
from session_cache import kept
from traced_once import tracing_each_network_once
from tumorseg_runtime.bundle.bundle import Bundle, sha256_of
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.images.read import read_image, write_png
from tumorseg_runtime.parity.conformance import Conformance, check_conformance

if TYPE_CHECKING:
    import torch

    from tumorseg_train.data.split import Item, Manifest
    from tumorseg_train.networks.run import Run

SIZE = 64  # pixels, height and width of the tiny network's input
ARCHITECTURE, ENCODER = "unet", "resnet18"
STEPS = 12
CPU_TARGETS: dict[str, tuple[str, ...]] = {  # with the packages that they need
    "onnx": (), "onnx-fp16": (), "onnx-deploy": (), "onnx-deploy-gray": (), "ncnn": ("ncnn", "pnnx"),
    "mnn": ("MNN",), "openvino": ("openvino",),
}  # fmt: skip
PARTS = ("train", "train", "test", "val", "train", "test", "train", "test")  # of image 0, 1, 2, ...


@pytest.hookimpl(tryfirst=True)  # before -m "not slow" is asked
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs every form of the tiny network is slow, whatever it does with it."""
    for item in items:
        if "full_bundle" in getattr(item, "fixturenames", ()):
            item.add_marker("slow")


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heard() -> None:
    """A shell that starts tests in the background has Ctrl-C ignored, in their processes too: not here."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _operators_are_read_once() -> None:
    """torch reads its table of operators anew at each export: longer than a small network takes to export."""
    if "torch" in sys.modules and "tumorseg_export.onnx.export" in sys.modules:
        registration = importlib.import_module("torch.onnx._internal.exporter._registration")
        registry = registration.ONNXRegistry
        registry.from_torchlib = staticmethod(functools.cache(registry.from_torchlib))


@pytest.fixture(scope="session", autouse=True)
def _the_same_network_is_traced_once() -> Iterator[None]:
    with tracing_each_network_once():
        yield


@pytest.fixture(scope="session")
def conformance_cut_short() -> Callable[[], AbstractContextManager[None]]:
    """Function whose context has `verify`, the full self-test and `parity` take the few conformance files of
    the quick self-test: for tests of all else that they do."""

    @contextmanager
    def cut_short() -> Iterator[None]:
        def quick(*arguments: Any, full: bool, **more: Any) -> Conformance:
            return check_conformance(*arguments, full=False, **more)

        with pytest.MonkeyPatch.context() as patch:
            for name in ("tumorseg_runtime.parity.verify", "tumorseg_benchmarks.parity.parity"):
                if name in sys.modules:
                    patch.setattr(f"{name}.check_conformance", quick)
            yield

    return cut_short


@pytest.fixture
def few_conformance_files(
    conformance_cut_short: Callable[[], AbstractContextManager[None]],
) -> Iterator[None]:
    """`conformance_cut_short` for one test."""
    with conformance_cut_short():
        yield


@pytest.fixture
def run_guarded(tmp_path: Path) -> Callable[..., list[str]]:
    """The function of `fakes.guard.guarded_in`, for this test."""
    return guarded_in(tmp_path)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 14 images in the layouts of the real datasets: gray and colour, sizes from 48 to 96.

    `brain/images/<n>.png` with `brain/masks/<n>.png` (8, of which n = 2 and 6 show no tumour), and
    `breast/Dataset_BUSI_with_GT/{benign,normal}/<class> (<n>).png` with `<class> (<n>)_mask.png` (3 each).
    """
    root = tmp_path_factory.mktemp("tiny_data")
    random = np.random.default_rng(20)
    for n in range(8):
        image, mask = _blob(random, 64 + 16 * (n % 3), 80, tumour=n not in (2, 6))
        _write_pair(root / "brain/images" / f"{n}.png", root / "brain/masks" / f"{n}.png", image, mask)
    for label in ("benign", "normal"):
        folder = root / "breast/Dataset_BUSI_with_GT" / label
        for n in range(1, 4):
            image, mask = _blob(random, 48, 96, tumour=label == "benign")
            if n == 2:
                image = np.stack([image, image // 2, 255 - image], axis=2)  # (H, W, 3)
            stem = f"{label} ({n})"
            _write_pair(folder / f"{stem}.png", folder / f"{stem}_mask.png", image, mask)
    return root


@pytest.fixture(scope="session")
def tiny_run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on `tiny_data`: a network that was trained for a few steps only, and finds bright blobs.

    U-Net with resnet18 at 64x64, one class; 5 test images: brain 2, 5, 7, benign 3 and normal 3.
    """
    pytest.importorskip("torch")
    from safetensors.torch import save_file

    from tumorseg_train.data.split import Manifest
    from tumorseg_train.networks.run import CHECKPOINT, SPLIT, Run

    contract = Contract(height=SIZE, width=SIZE)
    manifest = Manifest(tiny_data, 0, tuple(_tiny_items(tiny_data)))

    def train(folder: Path) -> None:
        save_file(_tiny_state(manifest, contract), folder / CHECKPOINT)

    root = kept("tiny-run", tmp_path_factory.mktemp("tiny") / "run", train)
    manifest.write(root / SPLIT)
    run = Run(
        root=root,
        architecture=ARCHITECTURE,
        encoder=ENCODER,
        contract=contract,
        checkpoint_sha256=sha256_of(root / CHECKPOINT),
        data={
            "root": str(tiny_data),
            "split_sha256": manifest.digest(),
            "phantoms": False,
            "images": {part: len(manifest.part(part)) for part in ("train", "val", "test")},
        },
        training={"recipe": {"name": "a few steps, for tests"}, "seed": 7, "steps": STEPS},
        metrics={"best_epoch": 0, "validation": {"mean_dice": 0.0}},
    )
    run.write()
    return Run.open(root)


@pytest.fixture(scope="session")
def tiny_bundle(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle of `tiny_run`: `model.onnx`, `model.fp16.onnx`, 4 golden images. Copy it to change it."""
    return _exported(tiny_run, "tiny-bundle", ("onnx", "onnx-fp16"), tmp_path_factory)


@pytest.fixture(scope="session")
def full_bundle(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """`tiny_run` in every form that a CPU runs, as far as the packages are installed, proven. Copy it to
    change it."""
    there = [name for name, needs in CPU_TARGETS.items() if all(map(importlib.util.find_spec, needs))]
    return _exported(tiny_run, "full-bundle", there, tmp_path_factory)


def _exported(run: Run, name: str, targets: Sequence[str], factory: pytest.TempPathFactory) -> Bundle:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from tumorseg_export.bundle.export import export_run

    def make(folder: Path) -> None:
        export_run(run, folder / "bundle", targets=targets)

    about = f"{run.checkpoint_sha256} {' '.join(targets)}"
    return Bundle.open(kept(name, factory.mktemp("exported") / name, make, about=about) / "bundle")


def _blob(
    random: np.random.Generator, height: int, width: int, *, tumour: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Noise uint8 (height, width), with a bright ellipse where there is a tumour, and its mask 0 or 255."""
    noise = random.integers(0, 90, (height, width), dtype=np.uint8)
    mask = np.zeros((height, width), np.uint8)
    if tumour:
        center = (int(random.integers(24, width - 24)), int(random.integers(20, height - 20)))
        axes = (int(random.integers(5, 14)), int(random.integers(5, 12)))
        cv2.ellipse(mask, center, axes, 30, 0, 360, 255, -1)
    return cv2.add(cv2.blur(noise, (3, 3)), mask // 2), mask


def _write_pair(image_path: Path, mask_path: Path, image: np.ndarray, mask: np.ndarray) -> None:
    for path, pixels in ((image_path, image), (mask_path, mask)):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path, pixels)


def _tiny_items(root: Path) -> list[Item]:
    """The items of `tiny_data`, in the order of their paths."""
    from tumorseg_train.data.split import Item

    brain = [(path, root / "brain/masks" / path.name) for path in sorted((root / "brain/images").iterdir())]
    breast = [
        (path, path.with_name(f"{path.stem}_mask.png"))
        for path in sorted((root / "breast").rglob("*.png"))
        if not path.stem.endswith("_mask")
    ]
    items = []
    for organ, pairs in (("brain", brain), ("breast", breast)):
        for index, (image, mask) in enumerate(pairs):
            names = [path.relative_to(root).as_posix() for path in (image, mask)]
            height, width = read_image(image).shape[:2]
            items.append(
                Item(
                    image=names[0],
                    masks=(names[1],),
                    organ=organ,
                    label="tumour" if organ == "brain" else image.parent.name,
                    part=PARTS[index],
                    height=height,
                    width=width,
                    tumour_px=int(np.count_nonzero(read_image(mask))),
                    files={name: sha256_of(root / name) for name in names},
                )
            )
    return items


def _tiny_state(manifest: Manifest, contract: Contract) -> dict[str, torch.Tensor]:
    """Weights of the tiny network: seeded, trained for a few steps on all images, so that it finds blobs."""
    import torch

    from tumorseg_runtime.processing.preprocess import Preprocessor
    from tumorseg_train.networks.models import build_model
    from tumorseg_train.training.losses import DiceBCELoss

    preprocess = Preprocessor(contract)
    size = (contract.width, contract.height)
    images, masks = [], []
    for item in manifest.items:
        images.append(preprocess(read_image(manifest.root / item.image)))
        mask = read_image(manifest.root / item.masks[0]) // 255
        masks.append(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)[None].astype(np.float32))
    batch, target = torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(masks))
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = build_model(ARCHITECTURE, ENCODER, channels=contract.channels, classes=len(contract.classes))
    model.train()
    loss, optimizer = DiceBCELoss(), torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss(model(batch), target).backward()
        optimizer.step()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the next pass alone sets the running statistics
    with torch.no_grad():
        model(batch)
    return dict(model.state_dict())
