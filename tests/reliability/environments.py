"""The runtime as a wheel with the oldest packages that pyproject.toml allows, and with the newest there are.

uv resolves, without torch: `lowest-direct` takes the lowest of every bound in pyproject.toml (and of what
those need in turn the newest that fits), `highest` the newest of all. Each Python of 3.10 to 3.13 that is in
PATH or pyenv's has both. Training and export need the torch of constraints.txt and are not tried.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reliability.bundles import make_bundle, write_pictures
from reliability.row import ROOT, NotPossibleError, Settings, Tally, tumorseg
from tumorseg_runtime.conformance.scenes import scene

PLACE = ROOT / "build/reliability/environments"
PYTHONS = ("3.10", "3.13", "3.11", "3.12")
RESOLUTIONS = {"oldest": "lowest-direct", "newest": "highest"}
EVERY = ("cpu", "ncnn", "mnn", "openvino", "dicom-jpeg", "dicom-seg", "nifti", "sign", "pages")
# What is installed. Extras hold each other's packages up: NumPy at its oldest goes with few of them.
SETS = {
    "oldest": ("oldest", EVERY),
    "oldest-without-dicom": ("oldest", ("cpu", "ncnn", "nifti")),
    "newest": ("newest", EVERY),
}
# A dependency of ncnn that writes the same files as opencv-python-headless, which would not be tried then.
LEFT_OUT = "opencv-python; sys_platform == 'none'\n"
SHIPPED = ROOT / "train/tumorseg_train/demo/bundle"


def oldest_and_newest(settings: Settings, tally: Tally) -> None:
    """`verify` with every backend, `predict` of every kind of file, `demo`; the masks are those of this
    environment, bit by bit."""
    if not settings.long:
        raise NotPossibleError("it fetches packages, a gigabyte for each Python: only in the long form")
    uv = have_uv()
    root = make_bundle(settings.folder / "bundle")
    inputs, pictures = write_inputs(settings.folder / "inputs"), settings.folder / "inputs/pictures"
    expected = {
        given: predicted(tumorseg, root, given, settings.folder / f"here {given.name}")
        for given in (inputs, pictures)
    }
    for python in PYTHONS[: settings.count(1, len(PYTHONS))]:
        interpreter = find(python)
        if interpreter is None:
            tally.add(f"Python {python} not here")
            continue
        for name, (age, extras) in SETS.items():
            environment = PLACE / f"{python}-{name}"
            try:
                versions = install(uv, environment, interpreter, RESOLUTIONS[age], extras)
                (PLACE / f"{python}-{name}.txt").write_text(versions)
                tally.add(f"packages, {name}, Python {python}", len(versions.splitlines()))
                given = inputs if "dicom-seg" in extras else pictures
                whole = extras is EVERY
                check(environment, root, given, expected[given], settings.folder / name, tally, whole=whole)
            except subprocess.CalledProcessError as error:
                words = " ".join(map(str, error.cmd))[:120]
                tally.fault(f"{python} {name}: {words}: {error.stderr[-300:]}")
            finally:
                shutil.rmtree(environment, ignore_errors=True)


def check(
    environment: Path,
    root: Path,
    inputs: Path,
    expected: dict[str, bytes],
    scratch: Path,
    tally: Tally,
    *,
    whole: bool,
) -> None:
    """What must hold in an environment. whole: with every backend."""

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        command = [str(environment / "bin/tumorseg"), *map(str, words)]
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=1800, check=False, env=plain()
        )

    what = environment.name
    done = run("verify", root, "--json")
    tally.demand(done.returncode == 0, f"{what}: verify: {done.stderr[-300:]}")
    for one in json.loads(done.stdout)["checks"] if done.stdout else ():
        if one["status"] == "unverified" and "is not installed" in one["detail"] and not whole:
            tally.add("backends of extras that were left out")
        elif one["device"] == "cpu":
            tally.add("backends and precisions")
            tally.demand(
                one["status"] == "passed", f"{what}: {one['backend']} {one['precision']}: {one['detail']}"
            )
    found = predicted(run, root, inputs, scratch)
    tally.add("predictions", len(found))
    tally.demand(found == expected and bool(found), f"{what}: other masks than here")
    done = run("demo", "--out", scratch / "demo.html")
    tally.demand(done.returncode == 0, f"{what}: demo: {done.stderr[-300:]}")
    tally.add("demos")


def predicted(run: Any, root: Path, inputs: Path, out: Path) -> dict[str, bytes]:
    """The masks by name, DICOM and NIfTI among them; raises CalledProcessError where `predict` fails."""
    done = run("predict", root, inputs, "--out", out, "--no-overlays")
    done.check_returncode()
    if (image := inputs / "one.dcm").exists():
        words = ("predict", SHIPPED, image, "--precision", "fp16", "--dicom-seg", "--series-seg")
        run(*words, "--out", out / "seg").check_returncode()  # whose mask is of other sums in each version
    import nibabel

    masks: dict[str, bytes] = {}
    for path in sorted((out / "masks").rglob("*.*")):
        name = path.relative_to(out).as_posix()
        if path.suffix == ".nii":
            masks[name] = np.asarray(nibabel.load(path).dataobj).tobytes()
        elif path.suffix == ".png":
            masks[name] = path.read_bytes()
    return masks


def write_inputs(folder: Path) -> Path:
    """Pictures, a DICOM image and a volume."""
    import nibabel
    from pydicom.dataset import Dataset, FileMetaDataset

    write_pictures(folder / "pictures", 6)
    pixels = scene(60, 70)
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5"
    for name in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
        setattr(image, name, "")
    image.StudyDate, image.StudyTime, image.Modality = "20260101", "120000", "US"
    image.StudyInstanceUID, image.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    image.Rows, image.Columns = pixels.shape
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PixelRepresentation = 1, "MONOCHROME2", 0
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit = 7
    image.PixelData = pixels.tobytes()
    image["PixelData"].VR = "OB"
    image.save_as(folder / "one.dcm", enforce_file_format=True)
    values = np.stack([scene(44, 52, start=n) for n in range(3)], axis=2)
    nibabel.Nifti1Image(values, np.diag((0.5, 0.5, 3, 1))).to_filename(folder / "scan.nii")
    return folder


def find(python: str) -> str | None:
    """An interpreter of this version: in PATH, or of pyenv."""
    placed = Path.home().glob(f".pyenv/versions/{python}.*/bin/python")
    for path in (shutil.which(f"python{python}"), *map(str, sorted(placed))):
        if path and not subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode:
            return path
    return None


def have_uv() -> Path:
    """The program uv, from PATH or from an environment of its own."""
    if found := shutil.which("uv"):
        return Path(found)
    place = PLACE / "uv"
    if not (place / "bin/uv").is_file():
        for words in (["-m", "venv", str(place)],):
            subprocess.run([sys.executable, *words], check=True, capture_output=True)
        pip = [str(place / "bin/python"), "-m", "pip", "install", "--quiet", "uv"]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotPossibleError(f"uv cannot be had: {done.stderr.strip()[-200:]}")
    return place / "bin/uv"


def install(uv: Path, environment: Path, interpreter: str, resolution: str, extras: Sequence[str]) -> str:
    """Make the environment; the versions in it, a line each. Raises CalledProcessError."""
    python = str(environment / "bin/python")

    def run(*words: str) -> str:
        done = subprocess.run(
            [str(uv), *words], capture_output=True, text=True, check=True, env=plain(), timeout=3600
        )
        return done.stdout

    run("venv", "--quiet", "--clear", "--python", interpreter, str(environment))
    run("pip", "install", "--quiet", "--python", python, *requirements(resolution, extras))
    run("pip", "install", "--quiet", "--python", python, "--no-deps", str(ROOT))
    return run("pip", "freeze", "--python", python)


def requirements(resolution: str, extras: Sequence[str]) -> list[str]:
    """uv's words for the packages of extras."""
    (left_out := PLACE / "left-out.txt").write_text(LEFT_OUT)
    return [
        "--resolution", resolution, "--only-binary", ":all:", "--override", str(left_out),
        *(word for extra in extras for word in ("--extra", extra)), "-r", str(ROOT / "pyproject.toml"),
    ]  # fmt: skip


def plain() -> dict[str, str]:
    """This process's environment, in which nothing of the checkout is on Python's path."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
