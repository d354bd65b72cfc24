"""Bundles that are whole by their seal and wrong in their content: deployment bugs, made on purpose."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tumorseg_runtime.bundle.bundle import INDEX, INDEX_HASH, Bundle, FileRecord, index_hash_text, sha256_of

if TYPE_CHECKING:
    import onnx

Edit = Callable[["onnx.ModelProto"], None]


@pytest.fixture(scope="session", autouse=True)
def _small_peaks() -> Iterator[None]:
    """The peak of the machine and times without another variant's threads are no point of these tests, and
    take longer than the benchmark."""
    from tumorseg_benchmarks.latency import bench

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tumorseg_benchmarks.latency.roofline.SIDES", (64, 128))
        patch.setattr("tumorseg_benchmarks.latency.roofline.COPY_BYTES", 2**20)
        patch.setattr(bench, "measure", functools.partial(bench.measure, pause=lambda seconds: None))
        yield


@pytest.fixture
def mutate(tiny_bundle: Bundle, tmp_path: Path) -> Callable[..., Path]:
    """`mutate(edit, file='model.onnx')`: a copy of the tiny bundle, its ONNX file edited, sealed anew."""
    import onnx

    def make(edit: Edit, file: str = "model.onnx") -> Path:
        root = tmp_path / "mutant"
        shutil.copytree(tiny_bundle.root, root)
        model = onnx.load(root / file)
        edit(model)
        onnx.save(model, root / file)
        seal = FileRecord(sha256_of(root / file), (root / file).stat().st_size)
        sealed = dataclasses.replace(tiny_bundle, root=root, files={**tiny_bundle.files, file: seal})
        index = sealed.to_index()
        (root / INDEX).write_text(index, encoding="utf-8")
        (root / INDEX_HASH).write_text(index_hash_text(index.encode()))
        return root

    return make
