"""Every reader of files that others may have made, each with a good file, and how to damage one.

A reader's `read` goes as far as its command does with the file alone: a page is written, a split is
asked for its parts, a summary is made.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.mutate import (
    changed_bytes,
    changed_json,
    changed_lines,
    changed_png,
    changed_safetensors,
    changed_text,
    changed_zip,
)

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs/results"
SHIPPED = ROOT / "train/tumorseg_train/demo/bundle"
Change = Callable[[bytes, random.Random], bytes]


@dataclasses.dataclass(frozen=True)
class Reader:
    """path: of the file, whose content is good now. change: gives a damaged one. read: what is tried."""

    name: str
    path: Path
    change: Change
    read: Callable[[], object]


def readers(folder: Path) -> Iterator[Reader]:
    """All readers, with their files below `folder`."""
    for make in _MAKERS:
        inside = folder / make.__name__.lstrip("_")
        inside.mkdir()
        yield from make(inside)


def _bundle(folder: Path) -> Iterator[Reader]:
    from tumorseg_runtime.bundle.archive import pack, unpack
    from tumorseg_runtime.bundle.bundle import INDEX, INDEX_HASH, Bundle
    from tumorseg_runtime.parity.margin import read_band
    from tumorseg_runtime.parity.reference import load_golden
    from tumorseg_runtime.processing.preprocess import Preprocessor

    root = folder / "bundle"
    shutil.copytree(SHIPPED, root)
    pack(root, folder / "bundle.zip")
    (root / INDEX_HASH).unlink()
    sealed = Bundle.open(root)

    def index() -> None:
        bundle = Bundle.read_index(root)
        bundle.problems()
        Preprocessor(bundle.contract)(np.zeros((8, 8), np.uint8))
        for artefact in bundle.artefacts:
            bundle.artefact(artefact.format, artefact.precision)

    def resealed(name: str) -> Bundle:
        """The bundle as one that was sealed with the file as it is now."""
        data = (root / name).read_bytes()
        seal = dataclasses.replace(
            sealed.files[name], sha256=hashlib.sha256(data).hexdigest(), bytes=len(data)
        )
        return dataclasses.replace(sealed, files={**sealed.files, name: seal}, held={})

    yield Reader("bundle.json", root / INDEX, changed_json, index)
    (root / INDEX_HASH).write_bytes((SHIPPED / INDEX_HASH).read_bytes())
    yield Reader("bundle.json.sha256", root / INDEX_HASH, changed_bytes, lambda: Bundle.read_index(root))
    (root / INDEX_HASH).unlink()
    certificate = sorted((root / "certificates").glob("*.json"))[0].relative_to(root).as_posix()
    precision = next(a.precision for a in sealed.artefacts if any(v.detail == certificate for v in a.parity))
    yield Reader(
        "certificate", root / certificate, changed_json, lambda: read_band(resealed(certificate), precision)
    )
    for suffix, change in (
        ("png", changed_png),
        ("npz", functools.partial(changed_zip, inner=changed_bytes)),
    ):
        name = f"golden/{sealed.golden[0]}.{suffix}"
        yield Reader(
            f"golden {suffix}", root / name, change, functools.partial(_load, load_golden, resealed, name)
        )

    def archive() -> None:
        shutil.rmtree(folder / "out", ignore_errors=True)
        unpack(folder / "bundle.zip", folder / "out")

    yield Reader(
        "archive", folder / "bundle.zip", functools.partial(changed_zip, inner=changed_json_or_bytes), archive
    )


def _load(load: Callable[[Any], object], resealed: Callable[[str], Any], name: str) -> object:
    return load(resealed(name))


def changed_json_or_bytes(good: bytes, draw: random.Random) -> bytes:
    """A changed JSON text where it is one."""
    return changed_json(good, draw) if good[:1] == b"{" else changed_bytes(good, draw)


def _device(folder: Path) -> Iterator[Reader]:
    from tumorseg_runtime.bundle.bundle import Bundle
    from tumorseg_runtime.core.records import to_json
    from tumorseg_runtime.deployment.store import ACTIVE, open_active, read_active, roll_back
    from tumorseg_runtime.device.cache import RANKING, Entry, read_ranking, write_ranking
    from tumorseg_runtime.device.engines import (
        EngineKey,
        Profile,
        latest_engine,
        read_engine,
        record_of,
        write_engine,
    )

    bundle = Bundle.open(SHIPPED)
    folder.chmod(0o700)
    entries = (
        Entry("onnxruntime", "cpu", "fp16", 1, {"onnxruntime": "1"}, "passed", 0.1),
        Entry("ncnn", "cpu", "fp32", 1, {}, "unverified", None, "not measured"),
    )
    write_ranking(folder, bundle, entries)
    yield Reader("ranking", folder / RANKING, changed_json, lambda: read_ranking(folder, bundle))
    store = folder / "store"
    (store / "bundles").mkdir(parents=True)
    (store / ACTIVE).write_text(to_json({"current": "0" * 64, "previous": "1" * 64}))

    def active() -> None:
        read_active(store)
        for use in (open_active, roll_back):
            _refused(use, store)

    yield Reader("active.json", store / ACTIVE, changed_json, active)
    key = EngineKey("0" * 64, bundle.digest(), "fp16", "tensorrt", "10", (87,), "gpu", Profile(1, 1, 4), None)
    engine = folder / "x.engine"
    write_engine(engine, b"plan", key)

    def record() -> None:
        read_engine(engine)
        latest_engine(folder, bundle, "fp16")

    yield Reader("engine record", record_of(engine), changed_json, record)


def _refused(use: Callable[[Path], object], path: Path) -> None:
    """Use a thing that cannot be whole: what is ours is right."""
    from tumorseg_runtime.core.errors import TumorsegError

    try:
        use(path)
    except TumorsegError:
        return


def _predictions(folder: Path) -> Iterator[Reader]:
    from tumorseg_runtime.cli.results_log import FILE, ResultsLog, earlier_names, stamp

    settings = {"bundle": {"name": "tiny", "sha256": "0" * 64}, "threshold": 0.5}
    files = [folder / "a.png", folder / "b.png"]
    for path in files:
        path.write_bytes(b"x")
        (folder / f"{path.stem}.mask.png").write_bytes(b"x")
    names = {str(path): path.stem for path in files}
    with ResultsLog(folder, settings, names, resume=False) as log:
        for path in files:
            line = {
                "file": str(path),
                "output": path.stem,
                "frame": 0,
                "frames": 1,
                "pictures": [],
                "image": path.name,
            }
            log.append({**line, "masks": {"tumour": f"{path.stem}.mask.png"}, "stamp": stamp(path)})
        log.append({"file": "c.png", "image": "c.png", "error": "c.png: is no image"})

    def resume() -> None:
        earlier_names(folder)
        with ResultsLog(folder, settings, names, resume=True) as log:
            log.write_summary()
            list(log.failed())

    yield Reader("predictions.jsonl", folder / FILE, changed_lines, resume)


def _run(folder: Path) -> Iterator[Reader]:
    from safetensors.numpy import save

    from tumorseg_export.checkpoint.reader import from_run
    from tumorseg_runtime.bundle.bundle import sha256_of
    from tumorseg_runtime.core.contract import Contract
    from tumorseg_train.config.plan import PLAN, TrainingPlan
    from tumorseg_train.config.recipe import load_recipe
    from tumorseg_train.data.split import SPLIT, Item, Manifest
    from tumorseg_train.networks.run import CHECKPOINT, INDEX, Run

    data = folder / "data"
    (data / "brain").mkdir(parents=True)
    (data / "brain/1.png").write_bytes(b"x")
    files = {"brain/1.png": sha256_of(data / "brain/1.png"), "brain/1.mask.png": "0" * 64}
    items = tuple(
        Item(
            "brain/1.png",
            ("brain/1.mask.png",),
            "brain",
            "tumour",
            part,
            64,
            64,
            9,
            files,
            f"g{part}",
            "image",
        )
        for part in ("train", "val", "test")
    )
    manifest = Manifest(data, 0, items, "grouped")
    manifest.write(folder / SPLIT)
    (folder / CHECKPOINT).write_bytes(save({"x": np.zeros(3, np.float32)}))
    recipe = load_recipe("quick")
    facts = {"root": str(data), "split_sha256": manifest.digest(), "phantoms": False, "images": {"train": 1}}
    training = {
        "recipe": {"name": "quick", **vars(recipe)},
        "initial_weights": None,
        "seconds": 1.5,
        "epochs": 1,
    }
    metrics = {"best_epoch": 1, "validation": {"mean_dice": 0.5}, "threshold": {"threshold": 0.5}, "test": {}}
    contract = Contract(height=64, width=64)
    Run(
        folder, "unet", "resnet18", contract, sha256_of(folder / CHECKPOINT), facts, training, metrics
    ).write()

    def run() -> None:
        opened = Run.open(folder)
        from_run(opened)
        opened.manifest()

    def split() -> None:
        read = Manifest.read(folder / SPLIT, data)
        read.copies(), read.straddling(), read.part("train"), read.digest()
        for item in read.items:
            for name in (item.image, *item.masks):
                inside = (data / name).resolve()
                if not inside.is_relative_to(data.resolve()):
                    raise AssertionError(f"{name!r} leads out of the data's folder")

    yield Reader("run.json", folder / INDEX, changed_json, run)
    yield Reader("split.json", folder / SPLIT, changed_json, split)
    TrainingPlan(str(data), "unet", "resnet18", contract, recipe, "quick").write(folder)

    def plan() -> None:
        read = TrainingPlan.read(folder)
        read.recipe.to_toml(), read.recipe.scaled(64, 0)

    yield Reader("plan.json", folder / PLAN, changed_json, plan)
    path = folder / "own.toml"
    path.write_text(recipe.to_toml())
    yield Reader("recipe", path, changed_text, lambda: load_recipe(str(path)))


def _weights(folder: Path) -> Iterator[Reader]:
    import torch
    from safetensors.torch import save_file

    from tumorseg_export.checkpoint.smp_config import CONFIG, read_config
    from tumorseg_export.checkpoint.state_file import read_network
    from tumorseg_export.checkpoint.state_fit import fitting_network
    from tumorseg_train.networks.models import build_model

    with torch.random.fork_rng():
        state = {
            k: v.contiguous()
            for k, v in build_model("unet", "resnet18", channels=3, classes=1).state_dict().items()
        }
    names = [
        *[name for name in state if not name.startswith("encoder.layer")][:12],
        "segmentation_head.0.weight",
    ]
    state = {name: state[name] for name in names} | {"decoder.x.weight": torch.zeros(2, 3)}
    save_file(state, folder / "weights.safetensors")
    torch.save({"state_dict": state, "epoch": 3}, folder / "weights.pth")

    def network(path: Path) -> None:
        found = read_network(path, lambda line: None).state
        _refused(lambda path: fitting_network(path, found, "unet", "resnet18", {}), path)

    path, pickle = folder / "weights.safetensors", folder / "weights.pth"
    yield Reader("safetensors", path, changed_safetensors, lambda: network(path))
    change = functools.partial(changed_zip, inner=changed_bytes)
    yield Reader("checkpoint (pickle)", pickle, change, lambda: network(pickle))
    config = {
        "_model_class": "Unet", "encoder_name": "resnet18", "encoder_depth": 5, "encoder_weights": None,
        "decoder_channels": [256, 128, 64, 32, 16], "in_channels": 3, "classes": 1, "activation": None,
    }  # fmt: skip
    (folder / CONFIG).write_text(json.dumps(config))

    def smp() -> None:
        found = read_config(folder / CONFIG, lambda line: None)
        build_model(
            found.architecture,
            found.encoder,
            channels=found.channels,
            classes=found.classes,
            options=found.options,
        )

    yield Reader("smp's config.json", folder / CONFIG, changed_json, smp)


def _results(folder: Path) -> Iterator[Reader]:
    from tumorseg_benchmarks.latency.regression import Timing, read_baseline, write_baseline
    from tumorseg_benchmarks.reports.html_report import foreign_page, read_report
    from tumorseg_train.evaluation.comparison import compare, gather
    from tumorseg_train.evaluation.complexity import read_latencies

    def page(paths: list[Path]) -> None:
        foreign_page([read_report(path) for path in paths], paths)

    evaluation, bench = folder / "evaluation.json", folder / "bench.json"
    values = json.loads((RESULTS / "cpu-128/unet.json").read_text())
    values["images"], values["draws"] = values["images"][:15], 20
    evaluation.write_text(json.dumps(values))
    data = values["data"]["part"], values["scale"]

    def read_evaluation() -> None:
        compare(gather([evaluation], {}, part=data[0], scale=data[1], draws=20))

    yield Reader("evaluation.json", evaluation, changed_json, read_evaluation)
    shutil.copy(RESULTS / "cpu-128/unetplusplus.bench.json", bench)
    yield Reader("bench.json (compare)", bench, changed_json, lambda: read_latencies([bench]))
    yield Reader("bench.json (page)", bench, changed_json, lambda: page([bench]))
    parity, good = folder / "parity.json", folder / "good.json"
    shutil.copy(bench, good)
    shutil.copy(RESULTS / "cpu-128/unetplusplus.parity.json", parity)
    yield Reader("parity.json (page)", parity, changed_json, lambda: page([good, parity]))
    baseline = folder / "baseline.json"
    write_baseline(baseline, {"cpu": "x"}, {"infer": Timing((0.1, 0.2, 0.3))})

    def timings() -> None:
        for timing in read_baseline(baseline, {"cpu": "x"}).values():
            timing.middle, timing.error  # noqa: B018

    yield Reader("baseline", baseline, changed_json, timings)


def _images(folder: Path) -> Iterator[Reader]:
    import cv2

    from tumorseg_runtime.images.frames import read_frames

    random_ = np.random.default_rng(3)
    picture = random_.integers(0, 255, (40, 50, 3), np.uint8)
    for suffix, change in (
        (".png", changed_png),
        (".jpg", changed_bytes),
        (".tif", changed_bytes),
        (".bmp", changed_bytes),
    ):
        path = folder / f"x{suffix}"
        path.write_bytes(cv2.imencode(suffix, picture)[1].tobytes())
        yield Reader(f"image {suffix}", path, change, functools.partial(_frames, read_frames, path))
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        "1.2.840.10008.5.1.4.1.1.2",
        generate_uid(),
    )
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    image.Modality, image.Rows, image.Columns, image.SamplesPerPixel = "CT", 16, 16, 1
    image.PhotometricInterpretation, image.PixelRepresentation = "MONOCHROME2", 0
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.WindowCenter, image.WindowWidth, image.RescaleSlope, image.RescaleIntercept = 100, 300, 1, -10
    image.PixelSpacing = [0.5, 0.5]
    image.PixelData = random_.integers(0, 4095, (16, 16), np.uint16).tobytes()
    buffer = io.BytesIO()
    image.save_as(buffer, enforce_file_format=True)
    path = folder / "x.dcm"
    path.write_bytes(buffer.getvalue())
    yield Reader("DICOM", path, changed_bytes, functools.partial(_frames, read_frames, path))


def _frames(read: Callable[[Path], Any], path: Path) -> None:
    for frame in read(path):
        frame.pixels.sum()


def _keys(folder: Path) -> Iterator[Reader]:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    from tumorseg_runtime.bundle.bundle import SIGNATURE
    from tumorseg_runtime.bundle.signature import verify_signature

    private = Ed25519PrivateKey.generate()
    key, signature = folder / "key.pub.pem", folder / SIGNATURE
    key.write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    signature.write_bytes(private.sign(b"index"))
    for name, path in (("public key", key), ("signature", signature)):
        yield Reader(name, path, changed_bytes, lambda: verify_signature(folder, b"index", key))


_MAKERS = (_bundle, _device, _predictions, _run, _weights, _results, _images, _keys)
