"""Model repositories of Triton, and the model in them on a stand-in for Triton's own module."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from tumorseg_runtime import Bundle, Segmenter
from tumorseg_runtime.cli.serve_repository import serve_repository
from tumorseg_runtime.core.errors import BackendError
from tumorseg_runtime.images.read import write_png
from tumorseg_runtime.serving import triton_model
from tumorseg_runtime.serving.triton_model import TritonPythonModel


def write(bundle: Path, out: Path, *arguments: str) -> Result:
    return CliRunner().invoke(serve_repository, [str(bundle), "--out", str(out), *arguments])


@pytest.fixture(scope="module")
def repository(small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("triton") / "repository"
    done = write(small_bundle, out, "--threads", "1", "--instances", "3", "--queue", "7", "--batch", "2")
    assert done.exit_code == 0, done.output
    return out


def test_the_repository_holds_the_sealed_bundle_and_what_the_options_say(
    repository: Path, small_bundle: Path
) -> None:
    model = repository / "runtime" / "tumorseg"
    assert Bundle.open(model / "1" / "bundle").digest() == Bundle.open(small_bundle).digest()
    config = (model / "config.pbtxt").read_text()
    for said in (
        "count: 3",
        "max_queue_size: 7",
        "max_batch_size: 2",
        'key: "THREADS" value: { string_value: "1"',
    ):
        assert said in config
    onnx = repository / "onnx" / "tumorseg_onnx"
    assert (onnx / "1" / "model.onnx").read_bytes() == (small_bundle / "model.onnx").read_bytes()
    assert (
        'output [ { name: "logits" data_type: TYPE_FP32 dims: [ 1, 64, 64 ] } ]'
        in (onnx / "config.pbtxt").read_text()
    )
    golden = json.loads((repository / "golden.json").read_text())
    with Segmenter.open(small_bundle) as segmenter:
        for one in golden["images"]:
            masks = segmenter.predict(repository / one["image"]).masks
            assert np.array_equal(np.load(repository / one["mask"]), masks * np.uint8(255))
    for script in ("golden_client.py", "serve.py"):
        compile((repository / script).read_text(), script, "exec")


def test_a_folder_that_holds_something_is_left_alone(small_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    assert write(small_bundle, tmp_path).exit_code != 0
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_deploy_form_goes_first(
    small_bundle: Path, tmp_path: Path, convert_bundle: Any, make_bundle: Any
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    convert_bundle(bundle, "onnx-deploy")
    assert write(bundle, tmp_path / "out").exit_code == 0
    onnx = tmp_path / "out" / "onnx" / "tumorseg_onnx"
    assert (onnx / "1" / "model.onnx").read_bytes() == (bundle / "model.deploy.onnx").read_bytes()
    assert 'name: "mask" data_type: TYPE_UINT8' in (onnx / "config.pbtxt").read_text()


class FakeTensor:
    """As Triton's: an array by a name."""

    broken = False

    def __init__(self, name: str, array: Any) -> None:
        self.name, self.array = name, array

    @classmethod
    def from_dlpack(cls, name: str, array: Any) -> FakeTensor:
        return cls(name, np.full_like(array, array.flat[0]) if cls.broken else array)

    def as_numpy(self) -> Any:
        return self.array


class FakeError(Exception):
    INVALID_ARG, INTERNAL = "invalid", "internal"

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class FakeResponse:
    def __init__(self, output_tensors: Any = (), error: FakeError | None = None) -> None:
        self.error, self.outputs = error, {one.name: one.array for one in output_tensors}


class FakeRequest:
    def __init__(self, *outputs: str, **inputs: Any) -> None:
        self.inputs, self.outputs = {name: FakeTensor(name, one) for name, one in inputs.items()}, outputs

    def requested_output_names(self) -> tuple[str, ...]:
        return self.outputs


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> Any:
    module: Any = ModuleType("triton_python_backend_utils")
    module.Tensor, module.TritonError, module.InferenceResponse = FakeTensor, FakeError, FakeResponse
    module.get_input_tensor_by_name = lambda request, name: request.inputs.get(name)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", module)
    return module


def model_of(repository: Path, **parameters: str) -> TritonPythonModel:
    values = {"BACKEND": "onnxruntime", "THREADS": "1", **parameters}
    config = {"max_batch_size": 2, "parameters": {key: {"string_value": one} for key, one in values.items()}}
    model = TritonPythonModel()
    folder = str(repository / "runtime" / "tumorseg")
    model.initialize({"model_config": json.dumps(config), "model_repository": folder, "model_version": "1"})
    return model


def test_each_request_has_its_answer_or_its_error(
    repository: Path, small_bundle: Path, tmp_path: Path, triton: Any, scene: Any
) -> None:
    images = [scene(50, 70, seed=1), scene(50, 70, seed=2), scene(90, 40, seed=3)]
    files = []
    for number, image in enumerate(images):
        write_png(tmp_path / f"{number}.png", image)
        files.append((tmp_path / f"{number}.png").read_bytes())

    def encoded(*data: bytes) -> Any:
        return np.array([[one] for one in data], np.object_)

    model = model_of(repository)
    answers = model.execute([
        FakeRequest("MASK", "LESIONS", "MARGIN", IMAGE=encoded(files[0], files[1])),
        FakeRequest("MASK", IMAGE=encoded(files[2][:200])),
        FakeRequest("MASK_PNG", PIXELS=images[2][None, :, :, None]),
        FakeRequest("MASK"),
        FakeRequest("MASK", IMAGE=encoded(files[0], files[2])),
        FakeRequest("MASK", PIXELS=np.zeros((1, 8, 8, 2), np.uint8)),
    ])  # fmt: skip
    model.finalize()
    with Segmenter.open(small_bundle) as segmenter:
        known = segmenter.predict(images)
    first = answers[0].outputs
    assert np.array_equal(first["MASK"], np.stack([one.masks for one in known[:2]]) * np.uint8(255))
    lesions = [json.loads(one[0])["lesions"] for one in first["LESIONS"]]
    assert lesions == [json.loads(json.dumps(one.to_dict()))["lesions"] for one in known[:2]]
    assert np.array_equal(first["MARGIN"][:, 0], np.float32([one.margin for one in known[:2]]))
    png = triton_model.decode_image(answers[2].outputs["MASK_PNG"][0, 0], "mask")
    assert np.array_equal(png, known[2].mask * np.uint8(255))
    said = [
        "",
        "damaged or cut off",
        "",
        "got neither of IMAGE and PIXELS",
        "have 2 sizes",
        "got shape (8, 8, 2)",
    ]
    for answer, words in zip(answers, said, strict=True):
        assert (answer.error is None) == (not words)
        if words:
            assert words in str(answer.error)
            assert answer.error.code == FakeError.INVALID_ARG


def test_a_server_that_reads_arrays_wrongly_does_not_become_ready(
    repository: Path, triton: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeTensor, "broken", True)
    monkeypatch.setattr(np, "__version__", "2.9.9")
    with pytest.raises(BackendError, match=r"reads arrays of numpy 2\.9\.9 wrongly"):
        model_of(repository)
