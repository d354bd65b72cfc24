import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from fakes.golden import expected_logits, golden_logits
from tumorseg_export.checkpoint.context import ExportContext
from tumorseg_export.references.calibration_images import choose_calibration
from tumorseg_export.references.golden_images import choose_items
from tumorseg_export.targets import onnx_fp16 as fp16
from tumorseg_runtime.core.errors import CheckFailedError
from tumorseg_train.networks.run import Run

FloatArray = npt.NDArray[np.float32]


@pytest.mark.slow
def test_weights_are_halved_and_both_ends_are_fp32(small_context: ExportContext, tmp_path: Path) -> None:
    results = fp16.make(small_context, tmp_path)
    graph = onnx.load(tmp_path / results.artefact.file).graph
    assert (results.artefact.file, results.artefact.precision) == ("model.fp16.onnx", "fp16")
    assert {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)} == {1}
    weights = [tensor for tensor in graph.initializer if len(tensor.dims) == 4]
    assert len(weights) == 3
    assert {tensor.data_type for tensor in weights} == {onnx.TensorProto.FLOAT16}
    assert "BatchNormalization" not in {node.op_type for node in graph.node}
    logits = golden_logits(tmp_path / results.artefact.file, small_context)
    expected = expected_logits(small_context)
    assert logits.dtype == np.float32
    assert 0 < np.abs(logits - expected).max() < 0.01 * expected.std()


@pytest.mark.slow
def test_the_source_stays_as_it_is(small_context: ExportContext, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in small_context.model.state_dict().items()}
    fp16.make(small_context, tmp_path)
    after = small_context.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_variance_beyond_fp16_is_handled(small_context: ExportContext, tmp_path: Path) -> None:
    """The same function, but the convolution's output is 3,000 times larger and BatchNorm takes it back."""
    convolution, norm = small_context.model.second[0], small_context.model.second[1]
    with torch.no_grad():
        convolution.weight.mul_(3000)
        convolution.bias.mul_(3000)
        norm.running_mean.mul_(3000)
        norm.running_var.mul_(3000**2)
    assert float(norm.running_var.max()) > 1e6  # and FP16 ends at 65,504
    fp16.make(small_context, tmp_path)
    logits = golden_logits(tmp_path / "model.fp16.onnx", small_context)
    expected = expected_logits(small_context)
    assert np.abs(logits - expected).max() < 0.01 * expected.std()


@pytest.mark.slow
def test_other_logits_than_the_golden_ones_are_refused(small_context: ExportContext, tmp_path: Path) -> None:
    first, *rest = small_context.golden
    wrong = dataclasses.replace(first, logits=first.logits + np.float32(0.1))
    with pytest.raises(
        CheckFailedError, match=r"folding BatchNorm changed the network on noise-0 \(logit error"
    ):
        fp16.make(dataclasses.replace(small_context, golden=(wrong, *rest)), tmp_path)


@pytest.mark.slow
def test_facts_name_the_extremes(small_context: ExportContext, tmp_path: Path) -> None:
    facts = fp16.make(small_context, tmp_path).facts["fp16"]
    assert facts["limit"] == 65504
    assert 0 < facts["largest_weight"]["value"] < 65504
    assert facts["largest_activation"]["layer"].startswith(("head", "first", "second"))
    assert facts["largest_activation"]["image"].startswith("noise-")
    assert facts["kept"] == []
    assert facts["images"] == 3


def test_calibration_images_are_others_than_the_golden_ones(tiny_run: Run) -> None:
    manifest = tiny_run.manifest()
    golden = choose_items(manifest, 6)  # all of the test part, and one of validation
    chosen = choose_calibration(manifest, golden, 100)
    assert len(chosen) == len(manifest.items) - 6
    assert not {item.image for item in golden} & {item.image for item in chosen}
    parts = [item.part for item in chosen]
    assert parts == sorted(parts, reverse=True)  # val before train
    assert choose_calibration(manifest, golden, 2) == chosen[:2]
