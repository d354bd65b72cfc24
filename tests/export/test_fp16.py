import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from tumorseg_export import fp16
from tumorseg_export.source import Source
from tumorseg_runtime.backends.onnxruntime import open_file
from tumorseg_runtime.errors import CheckFailedError

FloatArray = npt.NDArray[np.float32]


def run(path: Path, source: Source) -> FloatArray:
    """Logits (N, K, H, W) of the golden images under ONNX Runtime."""
    session = open_file(path, "cpu", 1)
    (logits,) = session.run(["logits"], {"image": np.stack([item.tensor for item in source.golden])})
    return np.asarray(logits)


def reference(source: Source) -> FloatArray:
    return np.stack([item.logits for item in source.golden])


def test_weights_are_halved_and_both_ends_are_fp32(small_source: Source, tmp_path: Path) -> None:
    made = fp16.make(small_source, tmp_path)
    graph = onnx.load(tmp_path / made.artefact.file).graph
    assert (made.artefact.file, made.artefact.precision) == ("model.fp16.onnx", "fp16")
    assert {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)} == {1}
    weights = [tensor for tensor in graph.initializer if len(tensor.dims) == 4]
    assert len(weights) == 3
    assert {tensor.data_type for tensor in weights} == {onnx.TensorProto.FLOAT16}
    assert "BatchNormalization" not in {node.op_type for node in graph.node}
    logits, expected = run(tmp_path / made.artefact.file, small_source), reference(small_source)
    assert logits.dtype == np.float32
    assert 0 < np.abs(logits - expected).max() < 0.01 * expected.std()


def test_the_source_stays_as_it_is(small_source: Source, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in small_source.model.state_dict().items()}
    fp16.make(small_source, tmp_path)
    after = small_source.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_variance_beyond_fp16_is_handled(small_source: Source, tmp_path: Path) -> None:
    """The same function, but the convolution's output is 3,000 times larger and BatchNorm takes it back."""
    convolution, norm = small_source.model.second[0], small_source.model.second[1]
    with torch.no_grad():
        convolution.weight.mul_(3000)
        convolution.bias.mul_(3000)
        norm.running_mean.mul_(3000)
        norm.running_var.mul_(3000**2)
    assert float(norm.running_var.max()) > 1e6  # and FP16 ends at 65,504
    fp16.make(small_source, tmp_path)
    logits, expected = run(tmp_path / "model.fp16.onnx", small_source), reference(small_source)
    assert np.abs(logits - expected).max() < 0.01 * expected.std()


def test_weight_beyond_fp16_is_refused_by_name(small_source: Source, tmp_path: Path) -> None:
    with torch.no_grad():
        small_source.model.head.weight[0, 3, 1, 1] = -7e4
    with pytest.raises(
        CheckFailedError, match=r"layer head\.weight reaches 7e\+04 \(weights\), FP16 ends at 65504"
    ):
        fp16.make(small_source, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_activation_beyond_fp16_is_refused_by_layer_and_image(small_source: Source, tmp_path: Path) -> None:
    """Weights that fit, an activation that does not, and the logits as before."""
    model = small_source.model
    with torch.no_grad():
        model.second[1].weight.mul_(1e5)
        model.second[1].bias.mul_(1e5)
        model.head.weight[:, 8:].mul_(1e-5)
    with torch.inference_mode():
        for item in small_source.golden:
            same = model(torch.from_numpy(item.tensor)[None])[0].numpy()
            assert np.abs(same - item.logits).max() < 1e-3 * item.logits.std()
    with pytest.raises(CheckFailedError, match=r"layer second\.0 .*\(noise-0\), FP16 ends at 65504"):
        fp16.make(small_source, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_goes_into_a_layer_counts_too(small_source: Source) -> None:
    class Sum(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner, self.last = inner, torch.nn.Conv2d(1, 1, 1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.last(self.inner(image) * 1e6)  # no layer of its own
            return logits

    with pytest.raises(CheckFailedError, match="layer last "):
        fp16.check_activations(Sum(small_source.model).eval(), small_source)


def test_other_logits_than_the_golden_ones_are_refused(small_source: Source, tmp_path: Path) -> None:
    first, *rest = small_source.golden
    wrong = dataclasses.replace(first, logits=first.logits + np.float32(0.1))
    with pytest.raises(
        CheckFailedError, match=r"folding BatchNorm changed the network on noise-0 \(logit error"
    ):
        fp16.make(dataclasses.replace(small_source, golden=(wrong, *rest)), tmp_path)


def test_facts_name_the_extremes(small_source: Source, tmp_path: Path) -> None:
    facts = fp16.make(small_source, tmp_path).facts["fp16"]
    assert facts["limit"] == 65504
    assert 0 < facts["largest_weight"]["value"] < 65504
    assert facts["largest_activation"]["layer"] in {"head", "first.0", "first.2", "second.0", "second.2"}
    assert facts["largest_activation"]["image"].startswith("noise-")
