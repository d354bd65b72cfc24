"""`tumorseg predict`: images -> masks, overlays and one JSON."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import click
import numpy as np

from tumorseg_runtime.atomic import make_folder, write_text
from tumorseg_runtime.bundle import Bundle
from tumorseg_runtime.errors import CheckFailedError, InputError, OutputError
from tumorseg_runtime.images import SUFFIXES, write_png
from tumorseg_runtime.overlay import draw_overlay
from tumorseg_runtime.segmenter import Prediction, Segmenter

LARGEST = 3  # lesions named in an image's line; predictions.json has all


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder for masks/, overlays/, predictions.json.",
)
@click.option("--backend", default="onnxruntime", show_default=True, help="Backend; never substituted.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or tensorrt; never substituted.")
@click.option("--precision", default="fp32", show_default=True, help="fp32 or fp16: which artefact runs.")
@click.option("--threads", type=int, help="CPU threads of one inference [default: the backend's].")
@click.option("--json", "as_json", is_flag=True, help="Print predictions.json instead of a line per image.")
def predict(
    bundle: Path,
    files: tuple[Path, ...],
    out: Path,
    backend: str,
    device: str,
    precision: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Segment FILES (images or folders of images) with BUNDLE.

    Masks have the images' own sizes, 255 where a tumour was found. A file that cannot be read is listed at
    the end and does not stop the rest; the exit status is then 1.
    """
    check_apart(out, files)
    paths = list_images(files)
    names = unique_names(paths)
    opened = Bundle.open(bundle)
    digest = opened.digest()
    segmenter = Segmenter.open(
        opened, backend=backend, device=device, precision=precision, threads=threads, batch_size=1
    )
    images: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    for path, name in zip(paths, names, strict=True):
        try:
            prediction = segmenter.predict(path)
        except (InputError, OutputError) as error:
            failed.append({"image": str(path), "error": str(error)})
            click.echo(f"error: {error}", err=True)
            continue
        written = write_prediction(prediction, segmenter.contract.classes, out, name)
        images.append({**prediction.to_dict(), **written})
        if not as_json:
            click.echo(describe(prediction))
    result = {
        "bundle": {"name": opened.name, "sha256": digest},
        "session": dataclasses.asdict(segmenter.info),
        "threshold": segmenter.contract.threshold,
        "images": images,
        "failed": failed,
    }
    text = json.dumps(result, indent=2) + "\n"  # ASCII: a file's name may not be valid UTF-8
    make_folder(out)
    write_text(out / "predictions.json", text)
    done = f"{len(images)} images -> {out}/masks, {out}/overlays, {out}/predictions.json"
    click.echo(text if as_json else done, nl=not as_json)
    if failed:
        raise CheckFailedError(
            f"{len(failed)} of {len(paths)} files could not be segmented: see above or predictions.json"
        )


def check_apart(out: Path, files: tuple[Path, ...]) -> None:
    """Raise InputError where pictures would be written among those that are read, or over them."""
    for target in (out / "masks", out / "overlays"):
        written = target.resolve()
        for path in files:
            read = path.resolve()
            if written.is_relative_to(read) or read.is_relative_to(written):
                raise InputError(
                    f"{target}: is written, {path} is read, expected them apart: choose another folder"
                )


def list_images(files: tuple[Path, ...]) -> list[Path]:
    """Files as given, folders as the images in them, sorted; raises InputError for a folder without any."""
    paths: list[Path] = []
    for path in files:
        if not path.is_dir():
            paths.append(path)
            continue
        inside = sorted(
            Path(base, name)
            for base, _, names in os.walk(path, onerror=_refuse)
            for name in names
            if Path(name).suffix.lower() in SUFFIXES
        )
        if not inside:
            raise InputError(f"{path}: holds no images, expected files ending in {', '.join(SUFFIXES)}")
        paths.extend(inside)
    return paths


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename}: cannot be listed ({error.strerror}): check its rights") from error


def unique_names(paths: list[Path]) -> list[str]:
    """A name for each image's outputs: its stem, with as many parent folders before it as tell all apart;
    with its suffix where the stems never do (a.png beside a.jpg)."""
    whole = [Path(os.path.abspath(path)) for path in paths]
    twice = [str(path) for path, count in Counter(whole).items() if count > 1]
    if twice:
        raise InputError(f"{twice[0]}: was given twice, expected every file once: remove one")
    for keep_suffix in (False, True):
        parts = [(path if keep_suffix else path.with_suffix("")).parts[1:] for path in whole]
        for depth in range(1, max(map(len, parts)) + 1):
            names = ["__".join(part[-depth:]) for part in parts]
            if len({name.casefold() for name in names}) == len(names):
                return names
    raise InputError("the files' paths differ only in case or in '__': rename one, or run them apart")


def write_prediction(
    prediction: Prediction, classes: tuple[str, ...], out: Path, name: str
) -> dict[str, Any]:
    """Write masks and overlay of one image; returns their paths relative to `out`."""
    masks = {}
    for label, mask in zip(classes, prediction.masks, strict=True):
        folder = "masks" if len(classes) == 1 else f"masks/{label}"
        make_folder(out / folder)
        masks[label] = f"{folder}/{name}.png"
        write_png(out / masks[label], mask.astype(np.uint8) * np.uint8(255))
    overlay = f"overlays/{name}.png"
    make_folder(out / "overlays")
    write_png(out / overlay, draw_overlay(prediction.image, prediction.masks))
    return {"masks": masks, "overlay": overlay}


def describe(prediction: Prediction) -> str:
    """One line for people."""
    height, width = prediction.masks.shape[1:]
    name = prediction.name.encode("utf-8", "replace").decode()  # a file's name may not be valid UTF-8
    if not prediction.lesions:
        return f"{name} ({width}x{height}): no lesion"
    largest = sorted(prediction.lesions, key=lambda lesion: -lesion.area_px)[:LARGEST]
    areas = ", ".join(f"{lesion.label} {lesion.area_px} px" for lesion in largest)
    more = f", {len(prediction.lesions) - LARGEST} smaller" if len(prediction.lesions) > LARGEST else ""
    return f"{name} ({width}x{height}): {len(prediction.lesions)} lesion(s): {areas}{more}"
