"""Bundles of the conformance network: an artefact of every format, golden images, made in no time."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.backends import BACKENDS, has_artefact, why_unavailable
from tumorseg_runtime.bundle.bundle import (
    GOLDEN_FOLDER,
    INDEX,
    INDEX_HASH,
    Bundle,
    FileRecord,
    index_hash_text,
    sha256_of,
)
from tumorseg_runtime.conformance.network import conformance_bundle, expected_logits
from tumorseg_runtime.conformance.scenes import colour_scene, scene
from tumorseg_runtime.images.read import write_png
from tumorseg_runtime.processing.preprocess import Preprocessor

CONTRACT = "rgb"


def make_bundle(root: Path, name: str = "conformance") -> Path:
    """Write a sealed bundle; another name makes another bundle that decides the same."""
    draft = conformance_bundle(CONTRACT)
    (root / GOLDEN_FOLDER).mkdir(parents=True)
    for file in draft.files:
        shutil.copyfile(draft.root / file, root / file)
    pictures = {"gray": scene(90, 70), "colour": colour_scene(64, 96), "flat": scene(40, 130, start=9)}
    preprocess = Preprocessor(draft.contract)
    for golden, pixels in pictures.items():
        tensor = preprocess(pixels)
        logits = expected_logits(CONTRACT, tensor).astype(np.float32)
        write_png(root / GOLDEN_FOLDER / f"{golden}.png", pixels)
        np.savez_compressed(root / GOLDEN_FOLDER / f"{golden}.npz", tensor=tensor, logits=logits)
    files = {
        path.relative_to(root).as_posix(): FileRecord(sha256_of(path), path.stat().st_size)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
    bundle = Bundle(root, name, draft.contract, draft.artefacts, tuple(pictures), files, {}, {}, {})
    text = bundle.to_index()
    (root / INDEX).write_text(text, encoding="utf-8")
    (root / INDEX_HASH).write_text(index_hash_text(text.encode()))
    return root


def choices(bundle: Bundle) -> list[tuple[str, str]]:
    """Every backend and precision that opens an artefact of the bundle on this machine's CPU."""
    return [
        (spec.name, precision)
        for spec in BACKENDS.values()
        if "cpu" in spec.devices and not why_unavailable(spec.name, "cpu")
        for precision in spec.precisions
        if has_artefact(bundle, spec.name, precision)
    ]


def pictures(number: int) -> list[npt.NDArray[np.uint8]]:
    """Gray images of sizes that differ."""
    return [scene(33 + 17 * n % 300, 40 + 29 * n % 310, start=n) for n in range(number)]


def write_pictures(folder: Path, number: int) -> Path:
    """A folder of PNG files with `pictures`."""
    folder.mkdir(parents=True)
    for n, pixels in enumerate(pictures(number)):
        write_png(folder / f"{n:02d}.png", pixels)
    return folder
