"""Bugs before the network: how a device reads, resizes and normalises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from tumorseg_benchmarks.mutants.mutant import Apply, Mutant, patched
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.images import read as images
from tumorseg_runtime.images.dicom import lookup_tables as dicom_window
from tumorseg_runtime.processing import preprocess
from tumorseg_runtime.processing.preprocess import Preprocessor

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
Resize = Callable[[UInt8Array, int, int], UInt8Array]

_decode, _to_uint8 = images.decode_image, images.to_uint8  # as they are before anything is broken
_resize, _normalise = preprocess.resize, preprocess.Preprocessor.normalise


def resized_by(rule: Resize) -> Apply:
    """Another rule in place of ours."""
    return patched(("tumorseg_runtime.processing.preprocess.resize", rule))


def by_opencv(interpolation: int) -> Apply:
    """Another of OpenCV's rules."""
    return resized_by(lambda image, h, w: np.asarray(cv2.resize(image, (w, h), interpolation=interpolation)))


def by_pillow(image: UInt8Array, height: int, width: int) -> UInt8Array:
    """Pillow's bilinear rule, which widens its filter where it makes an image smaller."""
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def by_torch(image: UInt8Array, height: int, width: int) -> UInt8Array:
    """torchvision's default: bilinear, antialiased, in float32."""
    import torch

    planes = torch.from_numpy(np.atleast_3d(image).astype(np.float32)).permute(2, 0, 1)[None]
    small = torch.nn.functional.interpolate(planes, (height, width), mode="bilinear", antialias=True)
    rounded = np.rint(small[0].permute(1, 2, 0).numpy()).astype(np.uint8)  # (height, width, C)
    return np.asarray(rounded if image.ndim == 3 else rounded[:, :, 0], np.uint8)


def sampled(position: Callable[[int, int], npt.NDArray[np.floating]]) -> Apply:
    """Bilinear with other positions: position(n_in, n_out) in source samples."""

    def rule(image: UInt8Array, height: int, width: int) -> UInt8Array:
        values: npt.NDArray[np.float64] = image.astype(np.float64)
        for axis, n_out in ((0, height), (1, width)):
            n_in = values.shape[axis]
            at = np.clip(position(n_in, n_out), 0, n_in - 1)
            low = np.floor(at).astype(np.intp)
            share = (at - low).reshape([-1 if i == axis else 1 for i in range(values.ndim)])
            high = np.minimum(low + 1, n_in - 1)
            values = values.take(low, axis) * (1 - share) + values.take(high, axis) * share
        return np.rint(values).astype(np.uint8)

    return resized_by(rule)


def letterboxed(padding: int) -> Resize:
    """The image's own aspect, the rest filled with `padding`."""

    def rule(image: UInt8Array, height: int, width: int) -> UInt8Array:
        scale = min(height / image.shape[0], width / image.shape[1])
        h, w = (max(1, round(side * scale)) for side in image.shape[:2])
        small = cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR_EXACT)
        top, left = (height - h) // 2, (width - w) // 2
        edges = (top, height - h - top, left, width - w - left)
        colour = (padding,) * 3
        return np.asarray(cv2.copyMakeBorder(small, *edges, cv2.BORDER_CONSTANT, value=colour), np.uint8)

    return rule


def transposed(image: UInt8Array, height: int, width: int) -> UInt8Array:
    """Our rule, on rows that were taken for columns."""
    turned = np.ascontiguousarray(image.swapaxes(0, 1))
    return np.asarray(cv2.resize(turned, (width, height), interpolation=cv2.INTER_LINEAR_EXACT), np.uint8)


def by_crop(image: UInt8Array, height: int, width: int) -> UInt8Array:
    """Our rule, on an image that has lost its first row and column."""
    inner = image[min(1, image.shape[0] - 1) :, min(1, image.shape[1] - 1) :]
    exact = cv2.INTER_LINEAR_EXACT
    return np.asarray(cv2.resize(np.ascontiguousarray(inner), (width, height), interpolation=exact), np.uint8)


def with_table(rule: Callable[[FloatArray, FloatArray, FloatArray], npt.NDArray[Any]]) -> Apply:
    """Another normalisation: rule(values 0..255 (1, 256), mean (C, 1), std (C, 1)) -> (C, 256)."""

    def init(self: Any, contract: Contract) -> None:
        values = np.arange(256, dtype=np.float32)[None]
        mean, std = (np.asarray(one, np.float32)[:, None] for one in (contract.mean, contract.std))
        self.contract = contract
        self.table = np.broadcast_to(rule(values, mean, std), (len(mean), 256)).astype(np.float32)

    return patched(("tumorseg_runtime.processing.preprocess.Preprocessor.__init__", init))


def decoded_by(rule: Callable[[bytes, UInt8Array], UInt8Array]) -> Apply:
    """Another reading of files: rule(bytes, the right pixels) -> pixels."""

    def decode(data: bytes, name: str) -> UInt8Array:
        return rule(data, _decode(data, name))

    return patched(
        ("tumorseg_runtime.images.read.decode_image", decode),
        ("tumorseg_benchmarks.variants.inputs.decode_image", decode),
    )


def swapped(data: bytes, pixels: UInt8Array) -> UInt8Array:
    """B, G, R."""
    return pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[:, :, ::-1])


def alpha_multiplied(data: bytes, pixels: UInt8Array) -> UInt8Array:
    """What is transparent becomes dark."""
    raw = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if raw is None or raw.ndim == 2 or raw.shape[2] != 4:
        return pixels
    alpha = raw[:, :, 3] / 255
    return np.rint(pixels * (alpha if pixels.ndim == 2 else alpha[:, :, None])).astype(np.uint8)


def high_byte(pixels: npt.NDArray[Any], name: str = "image") -> UInt8Array:
    """16 bits cut to the upper 8."""
    return (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else _to_uint8(pixels, name)


def low_byte(pixels: npt.NDArray[Any], name: str = "image") -> UInt8Array:
    """16 bits cut to the lower 8, as astype does."""
    return pixels.astype(np.uint8) if pixels.dtype == np.uint16 else _to_uint8(pixels, name)


def monochrome1_as_2(stored: npt.NDArray[Any], dataset: Any, index: int, *span: Any) -> UInt8Array:
    """DICOM gray as it is stored, whatever its photometric interpretation says."""
    gray = dicom_window.gray_to_uint8(stored, dataset, index, *span)
    return 255 - gray if dataset.PhotometricInterpretation == "MONOCHROME1" else gray


def taken_for_nchw(self: Preprocessor, resized: UInt8Array, name: str = "image") -> FloatArray:
    """The values of (H, W, C), read as (C, H, W)."""
    tensor = _normalise(self, resized, name)
    return np.ascontiguousarray(tensor.transpose(1, 2, 0)).reshape(tensor.shape)


def some(test: Callable[[int, int, int, int], bool], rule: Resize) -> Apply:
    """Another rule for some sizes alone: test(height in, width in, height out, width out)."""

    def resize(image: UInt8Array, height: int, width: int) -> UInt8Array:
        rows, columns = image.shape[:2]
        chosen = rule if test(rows, columns, height, width) else _resize
        return np.asarray(chosen(image, height, width), np.uint8)

    return resized_by(resize)


def nearest(image: UInt8Array, height: int, width: int) -> UInt8Array:
    """The nearest sample."""
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)


def smoothed(image: UInt8Array, height: int, width: int) -> UInt8Array:
    """Our rule on a blurred image."""
    return _resize(np.asarray(cv2.blur(image, (3, 3)), np.uint8), height, width)


FIRST = np.array([1, 0, 0], np.float32)[:, None, None]


def channelled(change: Callable[[FloatArray], FloatArray]) -> Apply:
    """Gray in other channels, where the network takes three."""

    def normalise(self: Preprocessor, resized: UInt8Array, name: str = "image") -> FloatArray:
        tensor = _normalise(self, resized, name)
        return np.ascontiguousarray(change(tensor)) if resized.ndim == 2 and len(tensor) == 3 else tensor

    return patched(("tumorseg_runtime.processing.preprocess.Preprocessor.normalise", normalise))


MUTANTS = (
    *(
        Mutant(name, "preprocessing", apply)
        for name, apply in (
            ("BGR for RGB", decoded_by(swapped)),
            ("no division by 255", with_table(lambda v, mean, std: (v - mean) / std)),
            ("wrong mean: 0.5", with_table(lambda v, mean, std: (v / 255 - np.float32(0.5)) / std)),
            ("wrong std: 0.5", with_table(lambda v, mean, std: (v / 255 - mean) / np.float32(0.5))),
            ("mean and std in the order B, G, R", with_table(lambda v, m, s: (v / 255 - m[::-1]) / s[::-1])),
            ("normalised twice", with_table(lambda v, mean, std: ((v / 255 - mean) / std - mean) / std)),
            ("Pillow's resize", resized_by(by_pillow)),
            ("area resize", by_opencv(cv2.INTER_AREA)),
            ("antialiased resize", resized_by(by_torch)),
            ("nearest for bilinear", by_opencv(cv2.INTER_NEAREST)),
            ("half-pixel shift in the resize", sampled(lambda n, out: np.arange(out) * (n / out))),
            ("align_corners in the resize", sampled(lambda n, out: np.linspace(0, n - 1, out))),
            (
                "height and width transposed",
                resized_by(transposed),
            ),
            ("letterbox for stretch", resized_by(letterboxed(0))),
            ("letterbox with another padding value", resized_by(letterboxed(114))),
            ("off-by-one crop of the image", resized_by(by_crop)),
            ("16 bits cut to the high byte", patched(("tumorseg_runtime.images.read.to_uint8", high_byte))),
            ("16 bits cut to the low byte", patched(("tumorseg_runtime.images.read.to_uint8", low_byte))),
            (
                "MONOCHROME1 not inverted",
                patched(("tumorseg_runtime.images.dicom.read._to_pixels", monochrome1_as_2)),
            ),
            (
                "EXIF orientation ignored",
                patched(("tumorseg_runtime.images.read._MODE", images._MODE | cv2.IMREAD_IGNORE_ORIENTATION)),
            ),
            ("alpha multiplied in", decoded_by(alpha_multiplied)),
            ("wrong resize above 1024 pixels", some(lambda h, w, oh, ow: max(h, w) > 1024, nearest)),
            ("wrong resize of odd sizes", some(lambda h, w, oh, ow: h % 2 == 1 and w % 2 == 1, nearest)),
            ("wrong resize where it enlarges", some(lambda h, w, oh, ow: h < oh and w < ow, nearest)),
            ("wrong resize where one side stays", some(lambda h, w, oh, ow: h == oh or w == ow, smoothed)),
            (
                "wrong resize of one axis",
                resized_by(lambda i, h, w: _resize(nearest(i, h, i.shape[1]), h, w)),
            ),
            ("gray in the first channel alone", channelled(lambda tensor: tensor * FIRST)),
            ("gray repeated after normalising", channelled(lambda tensor: tensor[[0, 0, 0]])),
            ("wrong resize of tall images", some(lambda h, w, oh, ow: h > 3 * w, nearest)),
            (
                "colour blurred",
                resized_by(lambda i, h, w: smoothed(i, h, w) if i.ndim == 3 else _resize(i, h, w)),
            ),
        )
    ),
    Mutant(
        "NHWC taken for NCHW",
        "preprocessing",
        patched(("tumorseg_runtime.processing.preprocess.Preprocessor.normalise", taken_for_nchw)),
        late=True,
    ),
)
