"""Every reader of files that others may have made, each with a good file, and how to damage one.

A reader's `read` goes as far as its command does with the file alone: a page is written, a split is
asked for its parts, a summary is made.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.mutate import (
    changed_bytes,
    changed_gzip,
    changed_header,
    changed_json,
    changed_lines,
    changed_png,
    changed_zip,
)
from fuzz.reader import SHIPPED, Reader, changed_json_or_bytes, refused
from fuzz.training_readers import results, run, weights


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
            refused(use, store)

    yield Reader("active.json", store / ACTIVE, changed_json, active)
    key = EngineKey("0" * 64, bundle.digest(), "fp16", "tensorrt", "10", (87,), "gpu", Profile(1, 1, 4), None)
    engine = folder / "x.engine"
    write_engine(engine, b"plan", key)

    def record() -> None:
        read_engine(engine)
        latest_engine(folder, bundle, "fp16")

    yield Reader("engine record", record_of(engine), changed_json, record)


def _predictions(folder: Path) -> Iterator[Reader]:
    from tumorseg_runtime.outputs.results_log import FILE, ResultsLog, earlier_names, stamp

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


def _volumes(folder: Path) -> Iterator[Reader]:
    if importlib.util.find_spec("nibabel") is None:  # extra nifti
        return
    import nibabel

    from tumorseg_runtime.images.frames import read_frames

    voxels = np.random.default_rng(4).integers(0, 900, (12, 10, 4), np.int16)
    for suffix, change in ((".nii", changed_header), (".nii.gz", changed_gzip)):
        path = folder / f"x{suffix}"
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1.0, 1.0, 3.0, 1.0])), path)
        yield Reader(f"NIfTI {suffix}", path, change, functools.partial(_frames, read_frames, path))


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


_MAKERS = (_bundle, _device, _predictions, run, weights, results, _images, _volumes, _keys)
