"""A case on a page: the image, and over it truth, mask and what differs between them, each to be shown alone.

The image is a JPEG of at most LONGEST pixels, the masks are transparent PNG files of one colour, which cost a
kilobyte or two: forty cases stay below 1.5 MB.
"""

from __future__ import annotations

import base64
import dataclasses

import cv2
import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.errors import InputError

LONGEST = 320  # pixels of a picture's longer side
QUALITY = 66  # of its JPEG
TRUTH, MASK = (0, 160, 255), (255, 96, 0)  # RGB; also of what was missed, and of what was marked too much

BoolArray = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class Words:
    """What a page calls the two masks that it compares, and their differences."""

    truth: str = "truth"
    mask: str = "mask found"
    flips: str = "what differs"
    extra: str = "false positive: marked, but not in the truth"
    missed: str = "false negative: in the truth, but not marked"


@dataclasses.dataclass(frozen=True)
class PageCase:
    """input: data URI. alt: what it shows. layers: data URIs by 'truth', 'mask', 'flips', all of the image's
    shape. state: as a verdict's, or empty. first: the layer that is shown at first."""

    title: str
    figures: str
    input: str
    alt: str
    layers: dict[str, str]
    state: str = ""
    first: str = "flips"


def page_case(
    title: str,
    figures: str,
    pixels: npt.NDArray[np.uint8],
    truth: BoolArray,
    mask: BoolArray | None = None,
    *,
    state: str = "",
    grow: int = 1,
    longest: int = LONGEST,
) -> PageCase:
    """pixels: uint8 (H, W) or (H, W, 3) RGB. truth, mask: bool (h, w), at a size of their own.

    longest: most pixels of the image's longer side. grow: side in pixels of the square as which each
    differing pixel is drawn.
    """
    layers = {"truth": mask_uri(truth, TRUTH)}
    if mask is not None:
        layers |= {"mask": mask_uri(mask, MASK), "flips": flips_uri(truth, mask, grow)}
    shown = image_uri(pixels, longest=longest, jpeg_quality=QUALITY)
    return PageCase(title, figures, shown, title, layers, state, "truth" if mask is None else "flips")


def mask_uri(mask: BoolArray, colour: tuple[int, int, int]) -> str:
    """bool (H, W) as a PNG of one colour, transparent where False."""
    return _layer([(mask, colour)])


def flips_uri(truth: BoolArray, mask: BoolArray, grow: int = 1) -> str:
    """What is only in the mask and only in the truth, each pixel as a square of `grow` pixels."""
    square = np.ones((grow, grow), np.uint8)
    extra, missed = (
        cv2.dilate(found.astype(np.uint8), square) > 0 for found in (mask & ~truth, truth & ~mask)
    )
    return _layer([(missed, TRUTH), (extra, MASK)])


def _layer(parts: list[tuple[BoolArray, tuple[int, int, int]]]) -> str:
    pixels = np.zeros((*parts[0][0].shape, 4), np.uint8)
    for mask, (red, green, blue) in parts:
        pixels[mask] = (blue, green, red, 255)
    return _encode(pixels, ".png", "png", [cv2.IMWRITE_PNG_COMPRESSION, 9])


def image_uri(
    pixels: npt.NDArray[np.uint8], *, longest: int | None = None, jpeg_quality: int | None = None
) -> str:
    """uint8 (H, W) or (H, W, 3) RGB as a data URI: PNG, or JPEG of a quality from 1 to 100.

    longest: most pixels of the longer side; a larger image is shrunk by area, a smaller one stays.
    Raises InputError for an array of another kind.
    """
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise InputError(
            f"a picture is {pixels.dtype} {pixels.shape}, expected uint8 (height, width[, 3]) in RGB order"
        )
    height, width = pixels.shape[:2]
    if longest is not None and max(height, width) > longest:
        scale = longest / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    stored = pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[:, :, ::-1])  # BGR
    if jpeg_quality is None:
        return _encode(stored, ".png", "png", [])
    return _encode(stored, ".jpg", "jpeg", [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])


def _encode(stored: npt.NDArray[np.uint8], suffix: str, kind: str, options: list[int]) -> str:
    ok, encoded = cv2.imencode(suffix, stored, options)
    if not ok:
        raise InputError(f"OpenCV could not encode a picture of shape {stored.shape} as {kind}")
    return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}"
