"""The pictures of the documentation, each made anew by its name: python docs/pictures.py [NAME...].

Drawings and phantoms only: no image of a patient. What is photographed of a page (SCREENS) needs chromium and
the page, which the command beside it makes; all else needs the extra `train` and a backend (`cpu`).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from tumorseg_runtime import Segmenter
from tumorseg_runtime.processing.overlay import draw_overlay
from tumorseg_train.config.recipe import load_recipe
from tumorseg_train.data.augment import Augmentation
from tumorseg_train.data.phantoms import draw_brain, draw_breast
from tumorseg_train.demo.demo import SHIPPED

DOCS = Path(__file__).parent
plt.rcParams.update({"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9})
IMAGES, RESULTS = DOCS / "images", DOCS / "results"
NEAR = 1.0  # logits
COLOURS, QUALITY = 128, 75  # of a PNG, of a JPEG
BLUE, ORANGE, GRAY = "#0072b2", "#c45100", "#6a737d"

EVALUATE = "tumorseg evaluate runs/latest --out build/evaluation"
# picture -> (page, width and height of the window, the command that makes the page)
SCREENS = {
    "demo.png": ("build/demo.html", (1200, 1300), "make demo"),
    "audit.png": ("build/audit.html", (1200, 1300), "make data audit"),
    "evaluation.png": ("build/evaluation/evaluation.html", (1200, 1300), EVALUATE),
    "parity-page.png": ("build/parity/parity.html", (1200, 1200), "make parity"),
    "bench-page.png": ("build/bench/bench.html", (1200, 1200), "make bench"),
}


def phantoms() -> Any:
    """Three heads and three breasts, the lesions outlined."""
    shown = []
    for seed in range(6):
        draw = draw_brain if seed < 3 else draw_breast
        pixels, truth = draw(np.random.default_rng([7, seed]), (256, 256), (1, 2, 0)[seed % 3])
        shown.append(draw_overlay(pixels, truth[None]))
    return np.vstack([np.hstack(shown[:3]), np.hstack(shown[3:])])


def augmentations() -> Any:
    """One phantom and five changes of it, by the recipe cpu."""
    pixels, truth = draw_brain(np.random.default_rng(3), (256, 256), 2)
    change = Augmentation(load_recipe("cpu"))
    changed = [(pixels, truth), *(change(pixels, truth.astype(np.uint8), seed) for seed in range(1, 6))]
    shown = [draw_overlay(image, np.asarray(mask, np.bool_)[None]) for image, mask in changed]
    return np.vstack([np.hstack(shown[:3]), np.hstack(shown[3:])])


def overlay() -> Any:
    """A phantom, the mask that the shipped network finds in it, and the overlay of `predict`."""
    pixels, prediction = _predicted()
    mask = np.repeat(prediction.mask[:, :, None], 3, axis=2).astype(np.uint8) * np.uint8(255)
    return np.hstack([cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB), mask, draw_overlay(pixels, prediction.masks)])


def band() -> Any:
    """Around the lesion: the image, the probability map, and the pixels with logits near the threshold."""
    pixels, prediction = _predicted()
    likely = (prediction.probabilities()[0] * 255).astype(np.uint8)
    logits = cv2.resize(prediction.logits[0], pixels.shape[::-1], interpolation=cv2.INTER_LINEAR)
    near = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    near[np.abs(logits - prediction.contract.logit_threshold) < NEAR] = (255, 96, 0)
    middle = [int(places.mean()) for places in np.nonzero(prediction.mask)]
    window = tuple(slice(max(0, at - 32), max(0, at - 32) + 64) for at in middle)
    shown = [cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB), cv2.cvtColor(likely, cv2.COLOR_GRAY2RGB), near]
    return np.hstack([each[window].repeat(4, axis=0).repeat(4, axis=1) for each in shown])


def preprocessing() -> Any:
    """An image of 480x640 pixels, and what the network sees of it: 384x384."""
    pixels, _ = draw_breast(np.random.default_rng(5), (480, 640), 1)
    with Segmenter.open(SHIPPED, precision="fp16") as segmenter:
        height, width = segmenter.contract.height, segmenter.contract.width
    from tumorseg_runtime.processing.preprocess import resize

    seen = np.zeros((480, width + 20), np.uint8) + np.uint8(255)
    seen[:height, 20:] = resize(pixels, height, width)
    return np.hstack([pixels, seen])


def chain() -> Any:
    """The four stages and what passes between them."""
    figure, axes = plt.subplots(figsize=(8, 1.5))
    axes.set(xlim=(0, 16), ylim=(0, 3))
    axes.axis("off")
    stages = ("train", "export", "runtime")
    between = ("images", "run", "bundle", "masks")
    for number, name in enumerate(stages):
        axes.text(
            4 * number + 4, 1.9, name, ha="center", va="center", weight="bold", color="white",
            bbox={"boxstyle": "round,pad=0.5", "facecolor": BLUE, "edgecolor": BLUE},
        )  # fmt: skip
    for number, name in enumerate(between):
        axes.text(4 * number + 2, 2.25, name, ha="center", fontsize=9)
        axes.annotate("", (4 * number + 3, 1.9), (4 * number + 1, 1.9), arrowprops={"arrowstyle": "->"})
    axes.text(
        8, 0.4, "benchmarks: does every artefact decide as PyTorch did, and how fast is it", ha="center",
        va="center", fontsize=9, bbox={"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": GRAY},
    )  # fmt: skip
    return figure


def schedules() -> Any:
    """Learning rate over a training, as share of its peak."""
    from tumorseg_train.training.lightning_module import SHAPES, factor

    figure, axes = plt.subplots(figsize=(6, 2.6))
    for name, colour in zip(SHAPES, (BLUE, ORANGE, GRAY), strict=True):
        axes.plot([factor(step, 500, 0.08, name) for step in range(500)], label=name, color=colour)
    axes.set(xlabel="step of 500", ylabel="share of the peak", title="Schedules, warm-up 0.08")
    axes.legend()
    return figure


def speed() -> Any:
    """U-Net++ at 512x512: times faster than PyTorch, with 95 % intervals."""
    rows = [
        row for row in _json("unetplusplus-resnet34-512.bench.json")["rows"]
        if row["batch"] == 1 and row["speed_up"] and not row["label"].startswith("stock")
    ]  # fmt: skip
    rows.sort(key=lambda row: row["speed_up"]["median"])
    figure, axes = plt.subplots(figsize=(7, 3.6))
    found = [row["speed_up"] for row in rows]
    arms = [[one["median"] - one["low"] for one in found], [one["high"] - one["median"] for one in found]]
    axes.barh(
        [row["label"] for row in rows], [one["median"] for one in found], xerr=arms, color=BLUE, ecolor=GRAY
    )
    axes.axvline(1, color=ORANGE)
    axes.set(
        xlabel="times faster than PyTorch eager, batch 1, two threads", title="U-Net++ resnet34, 512x512"
    )
    return figure


def start() -> Any:
    """U-Net++ at 512x512: from the start of a process to the first mask, and peak memory."""
    cold = _json("unetplusplus-resnet34-512.bench.json")["cold_start"]
    parts = (("start_ms", "start", GRAY), ("load_ms", "load", BLUE), ("first_ms", "first mask", ORANGE))
    names = sorted(cold, key=lambda name: sum(cold[name][key] for key, _, _ in parts))
    figure, (times, memory) = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    left = np.zeros(len(names))
    for key, word, colour in parts:
        values = np.array([cold[name][key] / 1000 for name in names])
        times.barh(names, values, left=left, label=word, color=colour)
        left += values
    times.set(xlabel="seconds")
    times.legend()
    memory.barh(names, [cold[name]["peak_mb"] for name in names], color=BLUE)
    memory.set(xlabel="peak memory in MB")
    figure.suptitle("Cold start of U-Net++ resnet34, 512x512")
    return figure


def reliability() -> Any:
    """The shipped network on its test part: predicted probability and how often it is right."""
    found = _json("shipped/evaluation.json")["calibration"]
    figure, axes = plt.subplots(figsize=(4.5, 4))
    axes.plot([0, 1], [0, 1], color=GRAY, linestyle="--", label="ideal")
    for name, colour in (("all", BLUE), ("near", ORANGE)):
        points = [point for point in found[name]["points"] if point["pixels"]]
        axes.plot(
            [point["predicted"] for point in points], [point["observed"] for point in points], marker="o",
            color=colour, label={"all": "all pixels", "near": "near the tumours"}[name],
        )  # fmt: skip
    axes.set(xlabel="predicted probability", ylabel="share that is tumour", title="Calibration")
    axes.legend()
    return figure


def strata() -> Any:
    """The shipped network on its test part: mean Dice by organ and by the size of the lesion."""
    found = _json("shipped/evaluation.json")["strata"]
    rows = [row for kind in ("size", "organ", "all") for row in found[kind] if row["images_with_tumour"]]
    figure, axes = plt.subplots(figsize=(7, 2.8))
    for place, row in enumerate(rows):
        dice = row["figures"]["mean_dice"]
        axes.plot(dice["value"], place, "o", color=BLUE)
        if dice["low"] is not None:
            axes.plot([dice["low"], dice["high"]], [place, place], color=BLUE)
    labels = [f"{row['name']} ({row['images_with_tumour']})" for row in rows]
    axes.set(yticks=range(len(rows)), yticklabels=labels, xlabel="mean Dice, 95 % interval", xlim=(0, 1))
    return figure


def dice_by_image() -> Any:
    """The shipped network on its test part: Dice of each image with a tumour, by the tumour's size."""
    figure, axes = plt.subplots(figsize=(7, 3.2))
    for organ, colour in (("brain", BLUE), ("breast", ORANGE)):
        rows = [
            row
            for row in _json("shipped/evaluation.json")["images"]
            if row["organ"] == organ and row["truth_px"]
        ]
        sizes = [100 * row["truth_px"] / row["pixels"] for row in rows]
        axes.semilogx(sizes, [row["dice"] for row in rows], ".", color=colour, label=organ)
    axes.set(xlabel="tumour, % of the image", ylabel="Dice", ylim=(0, 1))
    axes.legend()
    return figure


DRAWN: dict[str, Callable[[], Any]] = {
    "phantoms.jpg": phantoms,
    "augmentations.jpg": augmentations,
    "overlay.png": overlay,
    "band.png": band,
    "preprocessing.jpg": preprocessing,
    "chain.svg": chain,
    "schedules.svg": schedules,
    "speed.svg": speed,
    "cold-start.svg": start,
    "reliability.svg": reliability,
    "strata.svg": strata,
    "dice-by-image.svg": dice_by_image,
}


def _predicted() -> tuple[Any, Any]:
    pixels, _ = draw_brain(np.random.default_rng([0, 0]), (256, 256), 1)
    with Segmenter.open(SHIPPED, precision="fp16") as segmenter:
        return pixels, segmenter.predict(pixels)


def _json(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def photograph(page: Path, size: tuple[int, int]) -> Any:
    """A page's head in Chromium, uint8 (H, W, 3)."""
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        window = f"--window-size={size[0]},{size[1]}"
        flags = ("--headless", "--no-sandbox", "--hide-scrollbars", window, f"--screenshot={shot}")
        subprocess.run(["chromium", *flags, page.resolve().as_uri()], check=True, capture_output=True)
        return np.asarray(Image.open(shot).convert("RGB"))


def write(name: str, made: Any) -> None:
    """A drawing as SVG without a date, pixels as PNG of few colours or, of phantoms alone, as JPEG."""
    path = IMAGES / name
    if path.suffix == ".svg":
        plt.rcParams["svg.hashsalt"] = name
        made.savefig(path, bbox_inches="tight", metadata={"Date": None})
        plt.close(made)
        return
    picture = Image.fromarray(made).convert("RGB")
    if path.suffix == ".jpg":
        picture.save(path, quality=QUALITY, optimize=True)
    else:
        picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def main(names: list[str]) -> None:
    """Make these pictures, or all that need no page."""
    for name in names or DRAWN:
        if name in DRAWN:
            made = DRAWN[name]()
        elif name in SCREENS:
            page, size, command = SCREENS[name]
            if not Path(page).is_file():
                sys.exit(f"{page} is missing, expected the page of {name}: {command}")
            made = photograph(Path(page), size)
        else:
            sys.exit(f"{name} is no picture, expected one of {', '.join((*DRAWN, *SCREENS))}")
        write(name, made)


if __name__ == "__main__":
    main(sys.argv[1:])
