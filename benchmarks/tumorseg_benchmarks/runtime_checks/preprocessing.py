"""Preprocessing against what people write: Albumentations' usual three steps, and cv2.resize with numpy."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from tumorseg_benchmarks.latency.latency import Call, TimingPlan, measure
from tumorseg_benchmarks.reports.figure import Figure, Progress, Target, median_ms, ratio, timed
from tumorseg_benchmarks.runtime_checks.scenes import scene
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.processing.preprocess import Preprocessor

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
ALBUMENTATIONS = "Albumentations"
FRAME = (1080, 1920)
GRAY_TARGET = Target(2.5, at_least=True)
NOWHERE_SLOWER = Target(1.0, at_least=True)
SIZES = ((256, 256), (512, 512), (600, 800), (1024, 1024), FRAME, (2160, 3840))  # height, width
REPEATS = 4  # of each image in one timed call: a single one takes a millisecond


def measure_preprocessing(bundle: Bundle, plan: TimingPlan, progress: Progress) -> list[Figure]:
    """Speed-ups of `Preprocessor`: above 1 ours is faster. The network must take three channels."""
    contract = bundle.contract
    if contract.channels != 3:
        raise InputError(
            f"the network takes {contract.channels} channels, expected 3: measure with another bundle"
        )
    makers = {"cv2.resize + numpy": as_written, "cv2.resize + numpy in place": tuned}
    figures = []
    for colour in (False, True):
        kind = "RGB" if colour else "gray"
        targets = {"cv2.resize + numpy": NOWHERE_SLOWER, ALBUMENTATIONS: None if colour else GRAY_TARGET}
        for height, width in SIZES:
            progress(f"preprocessing: {height}x{width} {kind}")
            image = scene(bundle, height, width, colour=colour, seed=1)
            works: dict[str, Callable[[UInt8Array], object]] = {"ours": Preprocessor(contract)}
            works |= {name: make(contract) for name, make in makers.items()}
            if (height, width) == FRAME and importlib.util.find_spec("albumentations"):
                works[ALBUMENTATIONS] = albumentations_steps(contract)
            samples = measure({name: repeated(work, image) for name, work in works.items()}, plan, prime=True)
            ours = samples.pop("ours")
            for name, taken in samples.items():
                note = f"{median_ms(ours) / REPEATS:.2f} ms against {median_ms(taken) / REPEATS:.2f} ms"
                title = f"{height}x{width} {kind}: times faster than {name}"
                figures.append(ratio(title, taken, ours, targets.get(name), note))
        if not importlib.util.find_spec("albumentations"):
            title = f"1080x1920 {kind}: times faster than {ALBUMENTATIONS}"
            figures.append(Figure(title, None, "ratio", note="albumentations is not installed (extra train)"))
    return figures


def repeated(work: Callable[[UInt8Array], object], image: UInt8Array) -> Call:
    """A call that does the same image several times."""

    def several(number: int) -> None:
        for _ in range(REPEATS):
            work(image)

    return timed(several)


def as_written(contract: Contract) -> Callable[[UInt8Array], FloatArray]:
    """cv2.resize, three channels, division by 255, mean and std, transposed: as examples show it."""
    mean, std = (np.array(values, np.float32) for values in (contract.mean, contract.std))

    def convert(image: UInt8Array) -> FloatArray:
        resized = cv2.resize(image, (contract.width, contract.height))
        if resized.ndim == 2:
            resized = cv2.cvtColor(resized, cv2.COLOR_GRAY2RGB)
        values = (resized.astype(np.float32) / np.float32(255) - mean) / std  # (H, W, C)
        return np.ascontiguousarray(values.transpose(2, 0, 1))

    return convert


def tuned(contract: Contract) -> Callable[[UInt8Array], FloatArray]:
    """cv2.resize, then scale and shift in place, plane by plane: the least work in numpy.

    Neither step gives the same bits on every machine, nor those of `as_written`.
    """
    mean, std = (np.array(values, np.float32) for values in (contract.mean, contract.std))
    scale, shift = 1 / (255 * std), mean / std

    def convert(image: UInt8Array) -> FloatArray:
        resized = cv2.resize(image, (contract.width, contract.height))
        tensor = np.empty((contract.channels, contract.height, contract.width), np.float32)
        for channel, plane in enumerate(tensor):
            source = resized if resized.ndim == 2 else resized[:, :, channel]
            np.multiply(source, scale[channel], out=plane)
            plane -= shift[channel]
        return tensor

    return convert


def albumentations_steps(contract: Contract) -> Callable[[UInt8Array], object]:
    """Resize, Normalize and ToTensorV2, on three channels, which is what an encoder of this kind takes."""
    import albumentations
    from albumentations.pytorch import ToTensorV2

    steps = albumentations.Compose(
        [
            albumentations.Resize(contract.height, contract.width),
            albumentations.Normalize(contract.mean, contract.std),
            ToTensorV2(),
        ]
    )

    def convert(image: UInt8Array) -> object:
        colour = image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
        return steps(image=colour)["image"]

    return convert
