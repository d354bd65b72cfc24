"""What ONNX Runtime's GPU providers say of themselves, of missing libraries and of TensorRT, on stubs."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gpu_null import providers
from gpu_null.floor import Floor
from tumorseg_runtime.conformance import network
from tumorseg_runtime.core.errors import ParityError

pytestmark = pytest.mark.slow
GRAPH = next(Path(network.__file__).parent.rglob("*.onnx"))


@pytest.fixture
def changed(toolkit: Floor, tmp_path: Path) -> Callable[..., Floor]:
    """Function that gives the floor without a library, and with TensorRT of a major version."""

    def change(without: str = "-", tensorrt: int | None = None) -> Floor:
        folder = tmp_path / f"{without}{tensorrt}"
        folder.mkdir()
        for library in toolkit.libraries.glob("*.so.*"):
            if not library.name.startswith(without):
                os.symlink(library, folder / library.name)
        names = [] if tensorrt is None else [f"libnvinfer.so.{tensorrt}", f"libnvonnxparser.so.{tensorrt}"]
        for name in names:
            code = f"int getInferLibVersion(void) {{ return {tensorrt} * 10000; }}"
            command = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(folder / name)]
            subprocess.run(command, input=code, text=True, check=True, timeout=60)
        return dataclasses.replace(toolkit, libraries=folder)

    return change


def test_tensorrt_is_there_only_with_the_libraries_that_the_provider_was_linked_with(
    changed: Callable[..., Floor],
) -> None:
    (reason,) = changed().call(providers.reasons, ["tensorrt"]).value
    assert reason == "onnxruntime is built for TensorRT 10, libnvinfer.so.10 is not here"
    (reason,) = changed(tensorrt=11).call(providers.reasons, ["tensorrt"]).value
    assert reason == "onnxruntime is built for TensorRT 10, here is TensorRT 11"
    assert changed(tensorrt=10).call(providers.reasons, ["tensorrt"]).value == [None]


def test_the_tensorrt_provider_is_told_its_batches_and_where_its_engine_is_kept(
    changed: Callable[..., Floor], tmp_path: Path
) -> None:
    plain, kept, other = changed(tensorrt=10).call(providers.engines, GRAPH, tmp_path / "device").value
    assert plain == {
        "trt_profile_min_shapes": "image:1x3x64x96",
        "trt_profile_opt_shapes": "image:4x3x64x96",
        "trt_profile_max_shapes": "image:8x3x64x96",
    }
    (folder,) = (tmp_path / "device").iterdir()
    assert kept["trt_engine_cache_path"] == kept["trt_timing_cache_path"] == str(folder)
    assert kept["trt_engine_cache_enable"] == kept["trt_timing_cache_enable"] == "1"
    assert other == {}


def test_a_second_gpu_is_named_by_its_number(toolkit: Floor) -> None:
    answer = toolkit.call(providers.opened, GRAPH, "cuda:1")
    assert (answer.value["device_id"], answer.value["use_tf32"]) == ("1", "0")
    there, missing = toolkit.call(providers.reasons, ["cuda:1", "cuda:2"]).value
    assert there is None
    assert missing == "there is no GPU 2, the driver shows 2"


def test_what_runs_and_is_wrong_is_refused(toolkit: Floor, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="under onnxruntime on cuda an artefact decides other than PyTorch"):
        toolkit.call(providers.prove, tmp_path)


def test_a_missing_library_is_named_and_not_hidden_by_a_second_try(changed: Callable[..., Floor]) -> None:
    said = changed(without="libcublasLt").call(providers.opened, GRAPH, "cuda").value["error"]
    assert "libcublasLt.so.13" in said
    assert "Conflicting" not in said
