"""Reading images: bytes of a file to uint8 pixels, by one stated rule for every kind of file.

- gray stays (H, W); colour becomes (H, W, 3) in the order R, G, B; palettes become colour;
- an alpha channel is dropped, never multiplied in;
- the orientation of EXIF or TIFF is applied;
- integers other than uint8 are windowed linearly from the image's own minimum and maximum to
  0..255, rounded half to even (a constant image becomes 0); they are never
  truncated; floating point is refused, since its range would have to be guessed.

What a header tells is checked before decoding (`image_header`), and the decoded array against the header.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.files import write_bytes
from tumorseg_runtime.images.header import read_header
from tumorseg_runtime.images.image_header import ImageHeader

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".tif", ".tiff", ".btf", ".webp", ".jp2", ".j2k", ".avif",
    ".pbm", ".pgm", ".ppm", ".pnm",
)  # fmt: skip
OTHER_IMAGES = (
    ".mpo", ".heic", ".heif", ".gif", ".jpx", ".jxl", ".pam", ".pfm", ".psd", ".svg", ".exr", ".hdr", ".tga",
    ".mgz", ".nrrd", ".mha", ".mhd", ".mnc",
)  # fmt: skip  # which are not read; named where a folder holds some
MAX_FILE_BYTES = 256 * 2**20

# What is wrong, the InputError says; OpenCV 4 has this function under another name.
(cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel)(0)
_MODE = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR


def read_image(path: str | Path) -> npt.NDArray[np.uint8]:
    """Pixels of an image file: uint8, (H, W) if gray, else (H, W, 3) in RGB order, 0..255.

    Raises InputError if the file is missing, too large, damaged or of a kind that is not read.
    """
    return decode_image(_read_bytes(Path(path)), str(path))


def read_stored(path: str | Path) -> npt.NDArray[Any]:
    """The integers of an image file as it stores them, never windowed: (H, W), or (H, W, 3) in RGB order.

    Raises InputError as `read_image` does.
    """
    raw = _in_rgb(_decode(_read_bytes(Path(path)), str(path)))
    if not np.issubdtype(raw.dtype, np.integer):
        raise InputError(f"{path}: has {raw.dtype} values, expected integers: save it as PNG")
    return raw


def _read_bytes(path: Path) -> bytes:
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"{path}: got a '{path.suffix}' file, expected one of {', '.join(SUFFIXES)}, DICOM or "
            "NIfTI: convert it to PNG"
        )
    return read_file(path, MAX_FILE_BYTES, "an image file", "resize it first")


def read_file(path: Path, limit: int, kind: str, remedy: str) -> bytes:
    """All bytes of a regular file of at most `limit`; kind: what was expected, remedy: for what is larger.

    Raises InputError where it is missing, no file, or too large, before it is read.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would block for ever
            raise InputError(f"{path}: is not a regular file, expected {kind}: check the path")
        size = path.stat().st_size
        if size > limit:
            raise InputError(f"{path}: has {size} bytes, expected at most {limit}: {remedy}")
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}): check the path and its rights"
        ) from error


def decode_image(data: bytes, name: str) -> npt.NDArray[np.uint8]:
    """Pixels of an encoded image, as `read_image` returns them; `name` is used in messages."""
    return _in_rgb(to_uint8(_decode(data, name), name))


def _decode(data: bytes, name: str) -> npt.NDArray[Any]:
    """What a file stores: (H, W), or (H, W, 3) in the order B, G, R."""
    if not data:
        raise InputError(f"{name}: is empty, expected an image: copy the file again")
    header = read_header(data, name)
    try:
        mode = _MODE if header.orientation is None else _MODE | cv2.IMREAD_IGNORE_ORIENTATION
        raw = cv2.imdecode(np.frombuffer(header.data, np.uint8), mode)
    except cv2.error as error:
        raise InputError(
            f"{name}: cannot be decoded ({error.err.strip()}): copy or export the file again"
        ) from error
    if raw is None and header.doubt:
        raise InputError(
            f"{name}: {header.doubt}, which OpenCV {cv2.__version__} does not decode, or is damaged: "
            "convert it to PNG"
        )
    if raw is None:
        raise InputError(f"{name}: cannot be decoded, expected a whole image: copy or export the file again")
    return oriented(_as_promised(raw, header, name), header.orientation or 1)


def _in_rgb(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(pixels if pixels.ndim == 2 else pixels[:, :, ::-1])


def oriented(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """What is to be shown of stored pixels (H, W) or (H, W, 3), by the orientation of EXIF, 1 to 8."""
    if orientation >= 5:  # stored rows are columns
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels


def _as_promised(raw: npt.NDArray[np.generic], header: ImageHeader, name: str) -> npt.NDArray[np.generic]:
    """What OpenCV decoded, (H, W) or (H, W, 3) BGR, if it is what the header promised; else InputError."""
    if header.gray and raw.ndim == 3 and not np.ptp(raw, axis=2).any():
        raw = np.ascontiguousarray(raw[:, :, 0])  # gray with alpha comes back as three equal channels
    sizes = {(header.height, header.width), (header.width, header.height)}
    gray_fits = header.gray or header.kind == "bmp"  # a BMP's palette of grays comes back as gray
    channels_fit = gray_fits if raw.ndim == 2 else not header.gray and raw.shape[2] == 3
    if raw.shape[:2] not in sizes or not channels_fit or raw.dtype.itemsize * 8 != max(8, header.bits):
        raise InputError(
            f"{name}: was decoded to {raw.dtype} {raw.shape}, expected {max(8, header.bits)} bits and "
            f"{header.height}x{header.width} as its header says: OpenCV {cv2.__version__} cannot read this "
            "file; convert it to PNG"
        )
    return raw


def to_uint8(pixels: npt.NDArray[np.generic], name: str = "image") -> npt.NDArray[np.uint8]:
    """Integers of any width as uint8 by the rule of this module; uint8 comes back as it is.

    Raises InputError for floating point, whose range would have to be guessed.
    """
    if pixels.dtype == np.uint8:
        return pixels  # type: ignore[return-value]
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * np.uint8(255)
    if not np.issubdtype(pixels.dtype, np.integer):
        raise InputError(f"{name}: has {pixels.dtype} pixels, expected integers: scale it to 0..255 as uint8")
    return windowed(pixels, int(pixels.min()), int(pixels.max()))


def windowed(pixels: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.uint8]:
    """Values from `low`, which becomes 0, to `high`, which becomes 255, linearly, rounded half to even."""
    if low == high:
        return np.zeros(pixels.shape, np.uint8)
    return np.rint((pixels.astype(np.float64) - low) * 255 / (high - low)).astype(np.uint8)


def check_image(image: npt.NDArray[np.generic], name: str = "image") -> npt.NDArray[np.uint8]:
    """An array as the library takes it: uint8 (H, W), (H, W, 1) or (H, W, 3) RGB; (H, W, 1) loses its axis.

    Raises InputError for any other shape or dtype, and for an empty array.
    """
    if not isinstance(image, np.ndarray):
        raise InputError(f"{name}: got {type(image).__name__}, expected a numpy array or a path")
    if image.dtype != np.uint8:
        raise InputError(
            f"{name}: got dtype {image.dtype}, expected uint8: "
            "window it to 0..255 (tumorseg_runtime.images.read.to_uint8 does it for integers)"
        )
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3) or 0 in image.shape:
        raise InputError(
            f"{name}: got shape {image.shape}, expected (height, width) or (height, width, 3) in RGB order"
        )
    return image  # type: ignore[return-value]


def write_png(
    path: str | Path, pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], *, durable: bool = True
) -> None:
    """Write gray (H, W) or RGB (H, W, 3) pixels, uint8 or uint16, as PNG, whole or not at all.

    durable: as in `tumorseg_runtime.core.files`.
    """
    write_bytes(path, encode_png(pixels, str(path)), durable=durable)


def encode_png(pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], name: str = "image") -> bytes:
    """Gray (H, W) or RGB (H, W, 3) pixels as the bytes of a PNG file; `name` is used in messages."""
    stored = pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[:, :, ::-1])  # BGR
    ok, encoded = cv2.imencode(".png", stored)  # type: ignore[arg-type]  # any integers
    if not ok:
        raise InputError(f"{name}: OpenCV could not encode an array of shape {pixels.shape} as PNG")
    return encoded.tobytes()
