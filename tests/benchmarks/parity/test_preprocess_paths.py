"""Bytes to tensor: all paths give the golden vectors' bits, and every way to go wrong is seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tumorseg_benchmarks.parity.preprocess_paths import (
    PASSED,
    PATHS,
    REFUSED,
    UNVERIFIED,
    Made,
    PreprocessPath,
    UInt8Array,
    VectorCheck,
    by_runtime,
    check_vectors,
    vectors_lines,
)
from tumorseg_benchmarks.variants.host_kernel import HostKernel, why_no_compiler
from tumorseg_runtime.conformance.files import vectors
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError, InputError
from tumorseg_runtime.images.frames import read_frames
from tumorseg_runtime.processing import kernels
from tumorseg_runtime.processing.preprocess import Preprocessor


def refused(way: Callable[[Path, UInt8Array, Contract], Made]) -> set[str]:
    checks = check_vectors({"mine": PreprocessPath(lambda: way, reads_dicom=True)})
    assert all(check.reason for check in checks if check.status != PASSED)
    return {check.vector for check in checks if check.status == REFUSED}


@pytest.mark.parametrize("name", [name for name in PATHS if name != "GPU"])
def test_every_path_passes(name: str) -> None:
    path = PATHS[name]
    if reason := path.why_not():
        pytest.skip(reason)
    checks = check_vectors({name: path})
    assert {check.status for check in checks} <= {PASSED, UNVERIFIED}
    left_out = {check.vector for check in checks if check.status == UNVERIFIED}
    dicom = {vector.name for vector in vectors() if vector.dicom}
    assert left_out == (dicom if name == "training" else set())
    assert len(checks) == len(vectors())


def after(change: Callable[[UInt8Array], UInt8Array]) -> Callable[[Path, UInt8Array, Contract], Made]:
    """Inference on changed pixels."""

    def way(file: Path, pixels: UInt8Array, contract: Contract) -> Made:
        return {
            "tensor": Preprocessor(contract)(np.ascontiguousarray(change(next(read_frames(file)).pixels)))
        }

    return way


def test_channels_in_another_order() -> None:
    seen = refused(after(lambda pixels: pixels[..., ::-1] if pixels.ndim == 3 else pixels))
    colour = {vector.name for vector in vectors() if vector.pixels.ndim == 3}
    assert seen == colour - {"equal-channels-rgb.png"}


def test_a_decoder_that_forgets_orientation_depth_alpha_and_inversion() -> None:
    def plain(file: Path, pixels: UInt8Array, contract: Contract) -> Made:
        if file.suffix == ".dcm":
            return {"pixels": 255 - next(read_frames(file)).pixels}
        read = cv2.imread(str(file), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
        if read is None:  # of a TIFF with an orientation
            raise InputError("not read")
        if read.dtype == np.uint16:
            read = read >> 8
        if read.ndim == 3 and read.shape[2] == 4:
            read = read[..., :3] * (read[..., 3:] / 255.0)
        return {"pixels": (read if read.ndim == 2 else read[..., ::-1]).astype(np.uint8)}

    assert refused(plain) == {
        "16-bit-gray.png", "16-bit-rgb.png", "rgba.png", "gray-alpha.png",
        *(f"exif-{orientation}.jpg" for orientation in range(2, 9)), "exif-6-rgb.jpg",
        "16-bit-little-endian.tif", "16-bit-big-endian.tif", "16-bit-rgb.tif", "orientation-8.tif",
        *(vector.name for vector in vectors() if vector.dicom),
    }  # fmt: skip


@pytest.mark.parametrize("rule", [cv2.INTER_AREA, cv2.INTER_NEAREST, cv2.INTER_CUBIC])
def test_another_resize(rule: int) -> None:
    def way(file: Path, pixels: UInt8Array, contract: Contract) -> Made:
        size = contract.width, contract.height
        return {"resized": np.asarray(cv2.resize(pixels, size, interpolation=rule), np.uint8)}

    seen = refused(way)
    assert "large-gray.png" in seen
    assert "network-size-rgb.png" not in seen


def test_another_mean_is_seen_in_every_vector() -> None:
    def way(file: Path, pixels: UInt8Array, contract: Contract) -> Made:
        mean = tuple(value + 1e-6 for value in contract.mean)
        return {"tensor": Preprocessor(dataclasses.replace(contract, mean=mean))(pixels)}

    assert len(refused(way)) == len(vectors())


def test_a_path_that_refuses_a_file_is_refused_and_says_why() -> None:
    def way(file: Path, pixels: UInt8Array, contract: Contract) -> Made:
        if file.name == "palette.png":
            raise BackendError("no palettes here")
        return by_runtime(file, pixels, contract)

    checks = check_vectors({"mine": PreprocessPath(lambda: way, reads_dicom=True)})
    assert [check for check in checks if check.status != PASSED] == [
        VectorCheck("mine", "palette.png", REFUSED, "no palettes here")
    ]


def test_what_cannot_run_here_is_unverified() -> None:
    checks = check_vectors({"mine": PreprocessPath(lambda: by_runtime, lambda: "no such thing")})
    assert {(check.status, check.reason) for check in checks} == {(UNVERIFIED, "no such thing")}
    count = len(vectors())
    assert vectors_lines(checks) == [
        f"mine: 0 of {count} golden vectors equal bit for bit",
        f"  {count} unverified: no such thing (gray.png, rgb.png, wide-rgb.png)",
    ]


@pytest.mark.skipif(why_no_compiler() is not None, reason="g++ is not installed")
def test_a_changed_kernel_is_refused_and_one_that_does_not_compile_says_so(tmp_path: Path) -> None:
    source = kernels.SOURCE.read_text()
    wrong = tmp_path / "wrong.cu"
    wrong.write_text(source.replace("32768u", "32767u"))
    kernel = HostKernel(wrong)
    assert refused(lambda file, pixels, contract: {"tensor": kernel(pixels, contract)})
    wrong.write_text(source.replace("return", "retrun"))
    with pytest.raises(BackendError, match=r"g\+\+ does not compile wrong.cu \(.*error"):
        HostKernel(wrong)
