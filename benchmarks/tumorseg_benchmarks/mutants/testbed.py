"""Three small networks that are good at phantoms, exported for every backend: what the mutants are made of.

A U-Net (skip connections, nearest upsampling), a DeepLabV3 (dilated convolutions, bilinear upsampling with
aligned corners) and a U-Net++, all with resnet18. The phantoms of one organ are tinted, as some ultrasound
devices do, so that an exchange of colours can be seen at all.
"""

from __future__ import annotations

import dataclasses
import io
import pickle
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file

from tumorseg_benchmarks.parity.fp16_reference import rounded_reference
from tumorseg_benchmarks.parity.references import ReferenceSet, golden_reference, split_reference
from tumorseg_benchmarks.variants.pytorch import PyTorchSession
from tumorseg_export.bundle.export import export_run
from tumorseg_export.checkpoint.context import ExportContext
from tumorseg_export.targets import onnx_int8
from tumorseg_export.targets.registry import TARGETS
from tumorseg_runtime.bundle.bundle import Bundle, sha256_of
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import ParityError
from tumorseg_runtime.core.files import write_bytes
from tumorseg_runtime.images.read import read_image, write_png
from tumorseg_runtime.parity.reference import Golden, load_golden
from tumorseg_runtime.processing.preprocess import Preprocessor
from tumorseg_train.data.datasets import read_pair
from tumorseg_train.data.phantoms import write_phantoms
from tumorseg_train.data.split import SPLIT, Manifest, make_manifest
from tumorseg_train.networks.models import build_model
from tumorseg_train.networks.run import CHECKPOINT, Run
from tumorseg_train.training.losses import DiceBCELoss

FloatArray = npt.NDArray[np.float32]
Log = Callable[[str], None]

CONTRACT = Contract(height=64, width=96)  # not square: an exchange of the axes must show
ENCODER = "resnet18"
UNET, DEEPLAB, UNETPP = "unet", "deeplabv3", "unetplusplus"
# all that run on any CPU, which bfloat16 does not, and are made of any network, which INT8 is not
CHOSEN = tuple(
    name
    for name, target in TARGETS.items()
    if target.must_run
    and not (target.instead_of or target.judged)
    and target.options.get("precision") != "bf16"
)
FOR_BUGS = ("onnx", "onnx-fp16", "onnx-deploy", "onnx-deploy-gray")  # what the mutants are made of
PICKLE = "bed.pickle"
TINT = (1.0, 0.8, 0.55)  # of R, G, B
BATCH, RATE, SEED = 8, 2e-3, 5
EARLIER = 2  # passes before the end at which the weights of another epoch are taken


@dataclasses.dataclass(frozen=True)
class Size:
    """How large the test_bed is. phantoms: of each organ. passes: over the training images. golden: images
    of a bundle. targets: of the U-Net's export; the DeepLabV3's are the same."""

    phantoms: int = 40
    passes: int = 10
    golden: int = 6
    targets: tuple[str, ...] = CHOSEN
    networks: tuple[str, ...] = (UNET, DEEPLAB, UNETPP)


@dataclasses.dataclass(frozen=True)
class BedNetwork:
    """A trained network with all that a gate holds it against, made before anything is broken.

    refused: targets that the exporter did not seal, with its reason. earlier: the same training `EARLIER`
    passes before its end. golden: of the bundle. split: test images of
    the run with PyTorch's answers. rounded: the golden ones with those of the network whose weights are in
    FP16. model, earlier: in evaluation mode. int8: the bytes of the INT8 file, whose ranges the golden images
    gave; it is not judged, and is made of the U-Net alone.
    """

    name: str
    run: Run
    bundle: Bundle
    refused: dict[str, str]
    model: torch.nn.Module
    earlier: torch.nn.Module
    golden: tuple[Golden, ...]
    split: ReferenceSet
    rounded: ReferenceSet
    int8: bytes = b""

    def torch_logits(self, batch: FloatArray) -> FloatArray:
        """PyTorch's answer to float32 (N, C, H, W)."""
        return PyTorchSession(self.model, "cpu").infer(batch)


@dataclasses.dataclass(frozen=True)
class TestBed:
    """The networks by name, and a folder for what is made of them."""

    __test__ = False  # pytest takes a class of this name for tests

    folder: Path
    networks: dict[str, BedNetwork]


def make_test_bed(folder: Path, size: Size = Size(), log: Log = lambda line: None) -> TestBed:
    """Draw phantoms, train and export the networks into the empty folder; the same on every call."""
    data = folder / "data"
    write_phantoms(data, brain=size.phantoms, breast=size.phantoms, seed=SEED)
    for path in sorted((data / "breast").rglob("*.png")):
        if "_mask" not in path.stem:
            write_png(path, tinted(read_image(path)))
    manifest = make_manifest(data, SEED)
    networks = {}
    for name in size.networks:
        log(f"training {name} with {ENCODER}, {size.passes} passes over {len(manifest.part('train'))} images")
        networks[name] = _make_network(name, manifest, folder, size)
    return TestBed(folder, networks)


def write_test_bed(test_bed: TestBed) -> None:
    """Its objects beside its files; paths in the folder are kept as relative ones."""
    folder = test_bed.folder

    class Pickler(pickle.Pickler):
        def persistent_id(self, one: object) -> str | None:
            inside = isinstance(one, Path) and one.is_relative_to(folder)
            return str(one.relative_to(folder)) if inside else None  # type: ignore[attr-defined]

    file = io.BytesIO()
    Pickler(file).dump(test_bed)
    write_bytes(folder / PICKLE, file.getvalue(), durable=False)


def read_test_bed(folder: Path) -> TestBed:
    """What `write_test_bed` wrote, wherever the folder lies now."""

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, path: str) -> Path:
            return folder / path

    test_bed: TestBed = Unpickler(io.BytesIO((folder / PICKLE).read_bytes())).load()
    for name, network in test_bed.networks.items():
        run = dataclasses.replace(network.run, data={**network.run.data, "root": str(folder / "data")})
        run.write()
        test_bed.networks[name] = dataclasses.replace(network, run=run)
    return test_bed


def tinted(gray: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A gray image (H, W) in sepia: (H, W, 3)."""
    return np.stack([np.rint(gray * share).astype(np.uint8) for share in TINT], axis=2)


def _make_network(name: str, manifest: Manifest, folder: Path, size: Size) -> BedNetwork:
    model, earlier = train_network(name, manifest, size.passes)
    run = write_run(name, model, manifest, folder / f"{name}-run", size.passes)
    bundle, refused = export(run, folder / f"{name}-bundle", size)
    golden = tuple(load_golden(bundle))
    if not any(item.pixels.ndim == 3 for item in golden):
        raise AssertionError("no golden image has colour: an exchange of colours could not be seen")
    live = split_reference(run, PyTorchSession(model, "cpu"), "test", 0)
    assert live.tensor is not None
    tensors = [live.tensor(index) for index in range(len(live.images))]
    split = ReferenceSet(live.name, live.images, live.logits, tensors.__getitem__)
    halves = rounded_reference(model, golden_reference(bundle), CONTRACT)
    int8 = b""
    if name == UNET:
        onnx_int8.make(ExportContext(model, CONTRACT, {}, golden, calibration=golden), folder)
        int8 = (folder / onnx_int8.FILE).read_bytes()
    return BedNetwork(name, run, bundle, refused, model, earlier, golden, split, halves, int8)


def export(run: Run, folder: Path, size: Size) -> tuple[Bundle, dict[str, str]]:
    """The bundle, and what the exporter refused to put into it: then its remedy is taken, as a user would."""
    targets, refused = list(size.targets), dict[str, str]()
    while True:
        try:
            return export_run(run, folder, targets=targets, golden=size.golden), refused
        except ParityError as error:
            reason = str(error)
            if "under mnn on" in reason and "mnn" in targets:
                targets[targets.index("mnn")] = "mnn-exact"
                refused["mnn"] = reason
            elif ": model.fp16.onnx: " in reason and run.architecture == UNETPP:  # no mutant needs it
                targets.remove("onnx-fp16")
                refused["onnx-fp16"] = reason
            else:
                raise


def train_network(
    name: str, manifest: Manifest, passes: int, contract: Contract = CONTRACT
) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The network after all passes, and as it was `EARLIER` passes before, on whole images, some mirrored."""
    images, masks = _tensors(manifest, contract)
    random = np.random.default_rng(SEED)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        models = [
            build_model(name, ENCODER, channels=contract.channels, classes=len(contract.classes))
            for _ in range(2)
        ]
        model, earlier = models
        loss, optimizer = DiceBCELoss(), torch.optim.AdamW(model.parameters(), RATE)
        steps = passes * (len(images) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.2)
        model.train()
        for number in range(passes):
            if number == passes - EARLIER:
                earlier.load_state_dict(model.state_dict())
            order = random.permutation(len(images))
            for start in range(0, len(order) - BATCH + 1, BATCH):
                chosen = torch.from_numpy(order[start : start + BATCH])
                axes = [axis for axis in (2, 3) if random.random() < 0.5]
                optimizer.zero_grad()
                loss(model(images[chosen].flip(axes)), masks[chosen].flip(axes)).backward()
                optimizer.step()
                schedule.step()
    return model.eval(), earlier.eval()


def _tensors(manifest: Manifest, contract: Contract) -> tuple[torch.Tensor, torch.Tensor]:
    """Training images float32 (N, 3, h, w), and masks float32 (N, 1, h, w) of 0 and 1."""
    preprocess, images, masks = Preprocessor(contract), [], []
    for item in manifest.part("train"):
        image, mask = read_pair(manifest.root, item)
        size = (contract.width, contract.height)
        small = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT)
        images.append(preprocess(image, item.image))
        masks.append(np.asarray(small, np.float32)[None])
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(masks))


def write_run(
    name: str,
    model: torch.nn.Module,
    manifest: Manifest,
    root: Path,
    passes: int,
    contract: Contract = CONTRACT,
) -> Run:
    """The network as a run of ours at `root`, which must not be there."""
    root.mkdir()
    manifest.write(root / SPLIT)
    save_file(dict(model.state_dict()), root / CHECKPOINT)
    run = Run(
        root=root,
        architecture=name,
        encoder=ENCODER,
        contract=contract,
        checkpoint_sha256=sha256_of(root / CHECKPOINT),
        data={
            "root": str(manifest.root.resolve()),
            "split_sha256": manifest.digest(),
            "phantoms": True,
            "images": {part: len(manifest.part(part)) for part in ("train", "val", "test")},
        },
        training={"recipe": {"name": "for the mutants"}, "seed": SEED, "passes": passes},
        metrics={"best_epoch": passes, "validation": {}},
    )
    run.write()
    return Run.open(root)
