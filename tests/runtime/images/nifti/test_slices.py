"""Volumes as frames: what is shown of which voxels, and how."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.frames import read_frame, read_frames
from tumorseg_runtime.images.nifti.header import open_volume
from tumorseg_runtime.images.nifti.names import is_volume, slice_of, stem_of
from tumorseg_runtime.images.nifti.slices import read_label_slice, read_slice
from tumorseg_runtime.images.read import to_uint8

Array = npt.NDArray[Any]
Volume = Callable[..., Path]


def test_one_window_for_the_volume_and_the_spacing_of_its_affine(
    volume: Volume, blobs: Callable[..., Array], tmp_path: Path
) -> None:
    values = blobs(40, 30, 5)
    path = volume(tmp_path / "a.nii.gz", values, np.diag((0.5, 0.5, 3, 1)))
    frames = list(read_frames(path))
    # RAS: the first axis goes to the right, the second to the front; shown are left and back
    shown = to_uint8(values)[::-1, ::-1].transpose(2, 1, 0)
    np.testing.assert_array_equal(np.stack([frame.pixels for frame in frames]), shown)
    assert [frame.name for frame in frames] == [f"{path}[{index}]" for index in range(5)]
    assert {(frame.count, *frame.spacings) for frame in frames} == {(5, frames[0].spacings[0])}
    assert (frames[0].spacings[0].row_mm, frames[0].spacings[0].column_mm) == (0.5, 0.5)
    with pytest.raises(InputError, match="holds 5 frames"):
        read_frame(path)


@pytest.mark.parametrize("turn", [(0, 1), (1, 0)])
@pytest.mark.parametrize("flips", list(product((1, -1), repeat=3)))
def test_the_patient_is_shown_alike_however_the_file_stores_it(
    turn: tuple[int, int], flips: tuple[int, int, int], volume: Volume, tmp_path: Path
) -> None:
    import nibabel

    values = np.random.default_rng(1).integers(0, 256, (12, 9, 4), np.uint8)
    first = nibabel.Nifti1Image(values, np.eye(4))
    stored = first.as_reoriented(np.array([(turn[0], flips[0]), (turn[1], flips[1]), (2, flips[2])]))
    path = volume(tmp_path / "a.nii", np.asarray(stored.dataobj), stored.affine)
    shown = [frame.pixels for frame in read_frames(path)][:: flips[2]]
    plain = volume(tmp_path / "b.nii", values)
    np.testing.assert_array_equal(shown, [frame.pixels for frame in read_frames(plain)])


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", ">i2", "i4", "u4", "f4", ">f8"])
def test_values_of_every_kind(kind: str, volume: Volume, tmp_path: Path) -> None:
    values = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(kind)
    frames = list(read_frames(volume(tmp_path / "a.nii", values, kind=kind)))
    np.testing.assert_array_equal(
        np.stack([frame.pixels for frame in frames]),
        to_uint8(np.arange(24).reshape(2, 3, 4))[::-1, ::-1].transpose(2, 1, 0),
    )


@pytest.mark.parametrize(("slope", "inter"), [(2.5, -7), (-1, 0), (0, 5)])
def test_scaling_is_applied(slope: float, inter: float, volume: Volume, tmp_path: Path) -> None:
    values = np.arange(-12, 12, dtype=np.int16).reshape(2, 3, 4)
    path = volume(tmp_path / "a.nii", values, scl_slope=slope, scl_inter=inter)
    expected = to_uint8(values if slope >= 0 else -values)[::-1, ::-1].transpose(2, 1, 0)
    np.testing.assert_array_equal(np.stack([frame.pixels for frame in read_frames(path)]), expected)


def test_a_mask_holds_whole_numbers_after_its_scaling(volume: Volume, tmp_path: Path) -> None:
    values = np.array([0, 1, 2, 4], np.float32).reshape(2, 2, 1)
    labels = read_label_slice(volume(tmp_path / "a.nii", values), 0)
    assert (labels.dtype, labels.tolist()) == (np.uint8, [[4, 1], [2, 0]])
    path = volume(tmp_path / "b.nii", values.astype(np.int16), scl_slope=300)
    labels = read_label_slice(path, 0)
    assert (labels.dtype, labels.tolist()) == (np.uint16, [[1200, 300], [600, 0]])
    for number, (wrong, fields) in enumerate(
        ((values / 8, {}), (-values, {}), (values.astype(np.int16), {"scl_slope": 0.3}))
    ):
        path = volume(tmp_path / f"wrong-{number}.nii", wrong, **fields)
        with pytest.raises(InputError, match=r"wrong-.\.nii\[0\]: holds .*, expected whole numbers from 0"):
            read_label_slice(path, 0)


def test_slices_in_any_order_are_those_of_the_stream(
    volume: Volume, blobs: Callable[..., Array], tmp_path: Path
) -> None:
    for name in ("a.nii", "a.nii.gz"):
        path = volume(tmp_path / name, blobs(20, 16, 6))
        frames = [frame.pixels for frame in read_frames(path)]
        for index in (3, 4, 1, 5, 5, 0):
            np.testing.assert_array_equal(read_slice(path, index), frames[index])
    volume(path, blobs(20, 16, 6, seed=1))  # another file under the same name
    np.testing.assert_array_equal(read_slice(path, 2), [frame.pixels for frame in read_frames(path)][2])


def test_a_volume_is_never_held_as_a_whole(volume: Volume, tmp_path: Path) -> None:
    path = volume(tmp_path / "a.nii.gz", np.zeros((256, 256, 200), np.int16))
    tracemalloc.start()
    for frame in read_frames(path):
        assert frame.pixels.shape == (256, 256)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200 * 256 * 256 / 4  # a slice and what is made of it, not 26 MB


def test_names() -> None:
    assert stem_of(Path("a/b.c.NII.GZ")) == "b.c"
    assert stem_of(Path("a/b.c.png")) == "b.c"
    assert is_volume(Path("x.Nii"))
    assert not is_volume(Path("x.gz"))
    assert slice_of(Path("a/b.nii.gz[12]")) == (Path("a/b.nii.gz"), 12)
    assert slice_of(Path("a/b.dcm[12]")) is None


@pytest.mark.parametrize("way", ["renamed over it", "written into it"])
def test_a_file_of_the_same_size_and_time_is_read_anew(way: str, volume: Volume, tmp_path: Path) -> None:
    path = volume(tmp_path / "a.nii", np.arange(24, dtype=np.uint8).reshape(4, 3, 2), np.diag((1, 1, 3, 1)))
    other = volume(tmp_path / "b.nii", np.arange(24, dtype=np.uint8)[::-1].reshape(4, 3, 2))
    before = path.stat()
    first = [frame.pixels for frame in read_frames(path)], read_slice(path, 0), open_volume(path).voxel_mm3
    if way == "renamed over it":
        other.replace(path)
    else:
        path.write_bytes(other.read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    second = [frame.pixels for frame in read_frames(path)], read_slice(path, 0), open_volume(path).voxel_mm3
    assert not np.array_equal(first[0], second[0])
    assert not np.array_equal(first[1], second[1])
    np.testing.assert_array_equal(second[1], second[0][0])
    assert (round(first[2], 6), round(second[2], 6)) == (3, 1)
