"""Phantoms: drawn images with exact masks, in the very layouts of the real datasets.

They let everything run where no data is at hand: MRI-like slices of a head and ultrasound-like frames of
a breast. Lesions show by local contrast and texture, never by intensity alone: scalp, ventricles, shadows
and deep layers have the same values, so that no global threshold finds them. A network that is good at
phantoms proves that the tools work, and nothing about patients.

Every image is a function of (seed, organ, index); more images never change the first ones. All lengths
below are in pixels of an image whose shorter side has 512, and scale with the image.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.files import make_folder, staged, write_text
from tumorseg_runtime.core.paths import require
from tumorseg_runtime.core.progress import Tell, silent, told
from tumorseg_runtime.images.read import write_png
from tumorseg_train.data.phantom_shapes import (
    BoolArray,
    DrawnLesion,
    FloatArray,
    UInt8Array,
    highest,
    noise,
    place,
    ramp,
    star,
    to_uint8,
    union,
)

BRAIN, BREAST = 120, 120
NOTE = "PHANTOMS.txt"  # the file that says that a folder's images are drawn
DEFAULT = Path("data")  # what the Makefile calls DATA
PHANTOMS_FLAG = "--phantoms"
ORGANS = ("brain", "breast")
SIZES = {  # (height, width)
    "brain": ((512, 512), (512, 512), (512, 512), (471, 500), (512, 512), (480, 640), (560, 480)),
    "breast": ((512, 512), (471, 500), (512, 512), (512, 512), (480, 640), (512, 512), (640, 450)),
}
CLASSES = ("benign", "malignant", "benign", "malignant", "benign", "normal")


def ensure_data(root: Path, *, asked: bool = False, tell: Tell = silent) -> bool:
    """Draw phantoms into `root` if there is no such folder; True if they were drawn.

    They appear whole or not at all. A folder that exists is left as it is, whatever it holds. Unless they are
    asked for, only DEFAULT gets phantoms: any other path may be mistyped, which is an InputError.
    """
    if os.path.exists(root):
        return False
    if not asked and root != DEFAULT:
        require(root, "a folder of images", f"check the path, or draw phantoms into it by {PHANTOMS_FLAG}")
    write_phantoms(root, tell=tell)
    return True


def write_phantoms(
    root: Path, *, brain: int = BRAIN, breast: int = BREAST, seed: int = 0, tell: Tell = silent
) -> None:
    """Write `root/brain/{images,masks}`, `root/breast/Dataset_BUSI_with_GT/{benign,malignant,normal}`.

    The folder appears whole or not at all; raises InputError if it exists and is not an empty folder.
    """
    if brain < 0 or breast < 0 or brain + breast == 0 or seed < 0:
        raise InputError(
            f"got {brain} brain and {breast} breast phantoms with seed {seed}, expected numbers from 0 "
            "and at least one image"
        )
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        raise InputError(f"{root}: is not empty, expected a new folder for phantoms: choose another name")
    with staged(root) as part:
        for number in told(range(brain + breast), tell):
            if number < brain:
                _write_brain(part / "brain", number, seed)
            else:
                _write_breast(part / "breast" / "Dataset_BUSI_with_GT", number - brain, seed)
        write_text(
            part / NOTE,
            "These images are phantoms: drawn by tumorseg, not taken of anyone.\n"
            f"seed {seed}, {brain} brain, {breast} breast\n",
            durable=False,
        )


def _generator(seed: int, organ: str, index: int) -> np.random.Generator:
    return np.random.default_rng([seed, ORGANS.index(organ), index])


def _write_brain(folder: Path, index: int, seed: int) -> None:
    """Image and mask number `index`; every sixth has no lesion and an all-black mask."""
    rng = _generator(seed, "brain", index)
    lesions = 0 if index % 6 == 5 else int(rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1]))
    image, mask = draw_brain(rng, SIZES["brain"][index % 7], lesions)
    for name, pixels in (("images", image), ("masks", mask.astype(np.uint8) * np.uint8(255))):
        make_folder(folder / name)
        write_png(folder / name / f"{index + 1}.png", pixels, durable=False)


def _write_breast(folder: Path, index: int, seed: int) -> None:
    """Image and masks number `index`; one mask file for each lesion, an all-black one for a normal image."""
    rng = _generator(seed, "breast", index)
    label = CLASSES[index % len(CLASSES)]
    number = Counter(CLASSES[i % len(CLASSES)] for i in range(index + 1))[label]
    count = 0 if label == "normal" else int(rng.choice([1, 2, 3], p=[0.65, 0.27, 0.08]))
    image, lesions = _breast(rng, SIZES["breast"][index % 7], count, malignant=label == "malignant")
    masks = [lesion.mask for lesion in lesions] or [np.zeros(image.shape, np.bool_)]
    make_folder(folder / label)
    write_png(folder / label / f"{label} ({number}).png", image, durable=False)
    for i, mask in enumerate(masks):
        name = f"{label} ({number})_mask{f'_{i}' if i else ''}.png"
        write_png(folder / label / name, mask.astype(np.uint8) * np.uint8(255), durable=False)


def draw_brain(rng: np.random.Generator, size: tuple[int, int], lesions: int) -> tuple[UInt8Array, BoolArray]:
    """An MRI-like slice of (height, width) with so many lesions: uint8 (H, W), and bool (H, W) of them."""
    unit = min(size) / 512
    centre = (size[0] / 2 + rng.normal(0, 8 * unit), size[1] / 2 + rng.normal(0, 8 * unit))
    radii = (rng.uniform(212, 240) * unit, rng.uniform(176, 208) * unit)
    head = star(rng, size, centre, radii, angle=rng.normal(0, 0.15), roughness=0.009)
    inside = 0.84 + 0.01 * noise(rng, size, 40 * unit)  # level at which the brain ends
    brain = ramp(inside - head, 0.01)

    # Folds: sulci lie where smooth noise crosses zero, gray matter lines them, white matter fills the rest.
    folds = np.abs(noise(rng, size, 26 * unit) + 0.35 * noise(rng, size, 11 * unit))
    cortex = ramp(head - 0.45, 0.15)
    white, gray, fluid = rng.uniform(0.42, 0.47), rng.uniform(0.29, 0.34), rng.uniform(0.08, 0.14)
    tissue = white + (gray - white) * np.exp(-((folds / 0.6) ** 4)) * (0.3 + 0.7 * cortex)
    tissue += (fluid - tissue) * np.exp(-((folds / 0.17) ** 2)) * cortex * rng.uniform(0.5, 0.9)
    tissue += (fluid - tissue) * ramp(head - inside + 0.035, 0.008)
    for side in (-1, 1):
        middle = (centre[0] + rng.normal(0, 8) * unit, centre[1] + side * rng.uniform(20, 32) * unit)
        size_of = (rng.uniform(34, 58) * unit, rng.uniform(9, 19) * unit)
        ventricle = star(rng, size, middle, size_of, angle=side * rng.uniform(0.1, 0.4), roughness=0.08)
        tissue += (fluid - tissue) * ramp(1 - ventricle, 0.08)
    tissue *= 1 + 0.04 * noise(rng, size, 5 * unit)

    shapes = place(rng, lesions, size, unit, lambda y, x, r: highest(head, y, x, 1.1 * r) < 0.78)
    for lesion in shapes:
        _paint_brain_lesion(rng, tissue, lesion, unit)

    bone, fat = rng.uniform(0.05, 0.12), rng.uniform(0.6, 0.85)
    scalp = bone + (fat * (1 + 0.12 * noise(rng, size, 25 * unit)) - bone) * ramp(head - 0.91, 0.012)
    signal = tissue * brain + scalp * (1 - brain) * ramp(1 - head, 0.008)
    signal *= np.exp(rng.uniform(0.05, 0.2) * noise(rng, size, 220 * unit))  # bias field of the coil
    signal *= rng.uniform(0.7, 1.1)
    sigma = rng.uniform(0.012, 0.03)
    real = signal + rng.normal(0, sigma, size).astype(np.float32)
    magnitude = np.hypot(real, rng.normal(0, sigma, size).astype(np.float32))  # Rician noise
    return to_uint8(magnitude), union(shapes, size)


def _paint_brain_lesion(
    rng: np.random.Generator, tissue: FloatArray, lesion: DrawnLesion, unit: float
) -> None:
    """Solid, ring-enhancing or mottled, in a dark soft oedema; in place."""
    level, size = lesion.level, tissue.shape[:2]
    oedema = np.exp(-((np.maximum(level - 1, 0) / rng.uniform(0.15, 0.35)) ** 2))
    tissue += (rng.uniform(0.2, 0.26) - tissue) * oedema * rng.uniform(0.4, 0.8)
    kind = rng.choice(["solid", "ring", "mottled"], p=[0.4, 0.35, 0.25])
    bright = rng.uniform(0.62, 0.82)
    if kind == "solid":
        inner = bright * (1 + 0.06 * noise(rng, size, 7 * unit))
    elif kind == "ring":
        usual = max(0.18, 5 * unit / lesion.radius)
        core = rng.uniform(0.1, 0.28) * (1 + 0.15 * noise(rng, size, 8 * unit))
        width = usual * (1 + 0.3 * noise(rng, size, 15 * unit))
        inner = core + (bright - core) * ramp(level - 1 + width, 0.05)
    else:
        inner = bright * (0.85 + 0.15 * noise(rng, size, 6 * unit))
    tissue += (inner - tissue) * ramp(1 - level, 0.6 / lesion.radius)


def draw_breast(
    rng: np.random.Generator, size: tuple[int, int], lesions: int, *, malignant: bool = False
) -> tuple[UInt8Array, BoolArray]:
    """An ultrasound-like frame of (height, width) with so many lesions: uint8 (H, W), bool (H, W) of them.

    Benign lesions are smooth and brighten what lies behind them, malignant ones are jagged and cast shadows.
    """
    image, shapes = _breast(rng, size, lesions, malignant=malignant)
    return image, union(shapes, size)


def _breast(
    rng: np.random.Generator, size: tuple[int, int], lesions: int, *, malignant: bool
) -> tuple[UInt8Array, list[DrawnLesion]]:
    height, unit = size[0], min(size) / 512
    y = (np.arange(height, dtype=np.float32) / height)[:, None]  # depth, 0..1
    depth = y + 0.02 * noise(rng, size, 130 * unit) + 0.004 * noise(rng, size, 30 * unit)

    # Layers from the skin down: fat, gland, muscle, chest wall; each with its streaks along the layer.
    echo = np.full(size, rng.uniform(0.30, 0.40), np.float32)
    gland, muscle = rng.uniform(0.14, 0.24), rng.uniform(0.62, 0.74)
    for start, value in ((gland, (0.48, 0.6)), (muscle, (0.26, 0.34)), (muscle + 0.17, (0.14, 0.2))):
        echo += (rng.uniform(*value) - echo) * ramp(depth - start, 0.012)
    for start in (gland, muscle, muscle + 0.17):
        echo += rng.uniform(0.15, 0.35) * np.exp(-(((depth - start) / 0.008) ** 2))
    streaks = noise(rng, size, 9 * unit, 60 * unit) + 0.5 * noise(rng, size, 5 * unit, 25 * unit)
    echo *= 1 + 0.16 * streaks
    septa = np.exp(-((noise(rng, size, 18 * unit, 90 * unit) / 0.1) ** 2))
    echo += 0.3 * septa * ramp(muscle - depth, 0.02)
    echo += (rng.uniform(0.7, 0.9) - echo) * ramp(0.025 - depth, 0.006)

    def fits(y: float, x: float, radius: float) -> bool:
        return gland * height + 0.5 * radius < y < 0.7 * height - 0.6 * radius

    shapes = place(rng, lesions, size, unit, fits, jagged=malignant, flat=True)
    beam = _shadows(rng, size, unit)
    for lesion in shapes:
        _paint_breast_lesion(rng, echo, beam, lesion, unit, malignant)

    # Speckle: envelope of a correlated complex Gaussian field, wider than deep; then gain over depth.
    grain = (rng.uniform(1.8, 2.8) * unit, rng.uniform(1.0, 1.5) * unit)  # sigma of columns, of rows
    real, imaginary = (
        cv2.GaussianBlur(rng.normal(0, 1, size).astype(np.float32), (0, 0), sigmaX=grain[0], sigmaY=grain[1])
        for _ in range(2)
    )
    speckle = np.hypot(real, imaginary)
    speckle = np.power(speckle / speckle.mean(), rng.uniform(0.4, 0.65), dtype=np.float32)
    gain = np.exp(-rng.uniform(0.0, 1.3) * np.maximum(y - rng.uniform(0.2, 0.5), 0) / 0.5)
    signal = echo * speckle * beam * gain * rng.uniform(0.7, 1.15)
    signal += rng.uniform(0.01, 0.04) * np.abs(rng.normal(0, 1, size)).astype(np.float32)
    return to_uint8(signal), shapes


def _shadows(rng: np.random.Generator, size: tuple[int, int], unit: float) -> FloatArray:
    """How much of the beam arrives: (H, W), about 1; up to three bad contacts darken columns at a side."""
    beam: FloatArray = np.exp(0.12 * noise(rng, size, 300 * unit, 50 * unit))
    x = np.arange(size[1], dtype=np.float32)[None, :]
    y = np.arange(size[0], dtype=np.float32)[:, None]
    for _ in range(int(rng.integers(0, 4))):
        side = rng.uniform(-0.05, 0.12)
        middle = size[1] * (side if rng.random() < 0.5 else 1 - side)
        width = rng.uniform(25, 60) * unit * (1 + 0.4 * y / size[0])
        beam *= 1 - rng.uniform(0.5, 0.85) * np.exp(-(((x - middle) / width) ** 2)) * ramp(
            y / size[0] - rng.uniform(0.0, 0.3), 0.1
        )
    return beam


def _paint_breast_lesion(
    rng: np.random.Generator,
    echo: FloatArray,
    beam: FloatArray,
    lesion: DrawnLesion,
    unit: float,
    malignant: bool,
) -> None:
    """Dark lesion with its rim in `echo`, and what it does to the `beam` behind it; both in place."""
    size, level = echo.shape[:2], lesion.level
    x = np.arange(size[1], dtype=np.float32)[None, :]
    y = np.arange(size[0], dtype=np.float32)[:, None]
    inner = rng.uniform(0.05, 0.15) * (1 + 0.25 * noise(rng, size, 10 * unit))
    rim, thick = (0.1, 0.3) if malignant else (0.15, 0.12)
    echo += rim * np.exp(-(((level - 1 - thick / 2) / thick) ** 2)) * (level >= 1)
    echo += (inner - echo) * ramp(1 - level, (3 if malignant else 1.5) * unit / lesion.radius)
    column = np.exp(-(np.abs((x - lesion.x) / (0.8 * lesion.radius)) ** 4))
    behind = ramp((y - lesion.y) / lesion.radius - 0.8, 0.2)
    change = rng.uniform(-0.75, -0.3) if malignant else rng.uniform(0.2, 0.6)
    beam *= 1 + change * column * behind * np.where(level < 1, 0, 1)
