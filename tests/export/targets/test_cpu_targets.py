"""What each target for a CPU but ONNX must do, whatever its converter; what is special is in its own file."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tumorseg_export.checkpoint.context import ExportContext
from tumorseg_export.onnx import export as onnx_export
from tumorseg_export.targets.registry import TARGETS
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.inference.segmenter import Segmenter

PACKAGES = {"ncnn": ("ncnn", "pnnx"), "mnn": ("MNN",), "openvino": ("openvino",)}  # by target
BACKENDS = {"ncnn": ("ncnn",), "mnn": ("mnn", "mnn-exact"), "openvino": ("openvino",)}
CONVERT = """
import sys
from pathlib import Path
from tumorseg_export.checkpoint.context import ExportContext
from tumorseg_export.targets.registry import TARGETS
from tumorseg_runtime.bundle.bundle import Bundle
folder, bundle, target = Path(sys.argv[1]), Bundle.open(sys.argv[2]), sys.argv[3]
(folder / "model.onnx").write_bytes((bundle.root / "model.onnx").read_bytes())
made = TARGETS[target].make(ExportContext(None, bundle.contract, {}, ()), folder)
for file in made.artefact.files:
    assert (folder / file).read_bytes() == (bundle.root / file).read_bytes(), file
"""


@pytest.fixture(scope="module", params=PACKAGES)
def target(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    for package in PACKAGES[name]:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    return name


def make(target: str, context: ExportContext, folder: Path) -> dict[str, bytes]:
    """The files of the artefact by name; beside them lies model.onnx, and nothing else."""
    folder.mkdir()
    onnx_export.make(context, folder)
    files = TARGETS[target].make(context, folder).artefact.files
    assert {path.name for path in folder.iterdir()} == {onnx_export.FILE, *files}
    return {file: (folder / file).read_bytes() for file in files}


@pytest.mark.slow
def test_it_serves(target: str, full_bundle: Bundle, tiny_data: Path) -> None:
    image = tiny_data / "brain/images/1.png"
    expected, *masks = [
        Segmenter.open(full_bundle, backend=name, self_test=True).predict(image).mask
        for name in ("onnxruntime", *BACKENDS[target])
    ]
    assert expected.any()
    assert all(np.count_nonzero(mask != expected) <= 1 for mask in masks)


@pytest.mark.slow
def test_the_same_network_gives_the_same_bytes_without_a_path(
    target: str, small_context: ExportContext, tmp_path: Path
) -> None:
    first, second = (make(target, small_context, tmp_path / name) for name in ("first", "second"))
    assert first == second
    for content in first.values():
        assert not [
            trace for trace in (str(tmp_path), "site-packages", "model.onnx") if trace.encode() in content
        ]


@pytest.mark.slow
@pytest.mark.process
def test_export_opens_no_connection_and_writes_no_other_file(
    target: str, full_bundle: Bundle, tmp_path: Path, run_guarded: Callable[..., list[str]]
) -> None:
    assert run_guarded(CONVERT, tmp_path, full_bundle.root, target) == []
