"""The INT8 file: what is rounded, what stays, and that it is made with the calibration images alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from tumorseg_export.checkpoint.context import ExportContext
from tumorseg_export.precision import search
from tumorseg_export.precision.fp16_graph import Graph
from tumorseg_export.precision.int8_graph import integer_nodes, to_int8
from tumorseg_export.precision.int8_ranges import KINDS, Histogram, calibrate, observe
from tumorseg_export.precision.trial import Trials
from tumorseg_export.targets import onnx_int8 as int8
from tumorseg_export.targets.onnx_fp16 import fused_graph
from tumorseg_export.targets.registry import TARGETS
from tumorseg_runtime.backends.onnxruntime import open_file
from tumorseg_runtime.core.errors import CheckFailedError, InputError
from tumorseg_train.networks.mirrored import Mirrored
from tumorseg_train.networks.models import build_model


@pytest.fixture
def context(small_context: ExportContext) -> ExportContext:
    """The small network with its images as calibration images; its logits lie far from the threshold."""
    contract = dataclasses.replace(small_context.contract, threshold=0.999)
    return dataclasses.replace(small_context, contract=contract, calibration=small_context.golden)


def nodes(model: onnx.ModelProto, kind: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == kind]


def test_convolutions_but_the_last_are_rounded_per_channel(context: ExportContext, tmp_path: Path) -> None:
    result = int8.make(context, tmp_path)
    model = onnx.load(tmp_path / result.artefact.file)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    kernels = [values for values in weights.values() if values.dtype == np.int8 and values.ndim == 4]
    assert (result.artefact.file, result.artefact.precision) == ("model.int8.onnx", "int8")
    assert sorted(values.shape[1] for values in kernels) == [
        3,
        8,
    ]  # not of `head`
    assert all(np.abs(values).reshape(len(values), -1).max(axis=1).min() == 127 for values in kernels)
    assert all((values == 0).all() for name, values in weights.items() if name.endswith("weight_zero"))
    assert {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)} == {
        TensorProto.FLOAT
    }
    facts = result.facts["int8"]
    assert (facts["kept"], facts["images"]) == ([], 3)
    assert 0.4 < facts["multiplications"] < 0.9
    assert facts["ranges"] in KINDS


@pytest.mark.slow
def test_onnx_runtime_fuses_every_convolution_that_is_rounded(context: ExportContext, tmp_path: Path) -> None:
    """One that is not fused is slower than FP32: weights are made floating point again at each inference."""
    import onnxruntime

    file = tmp_path / int8.make(context, tmp_path).artefact.file
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(tmp_path / "optimised.onnx")
    assert len(nodes(optimised, "QLinearConv")) == 2
    assert not nodes(optimised, "Relu")


@pytest.mark.slow
def test_the_logits_are_near_and_openvino_reads_the_same_file(context: ExportContext, tmp_path: Path) -> None:
    file = tmp_path / int8.make(context, tmp_path).artefact.file
    batch = np.stack([item.tensor for item in context.golden])
    expected = np.stack([item.logits for item in context.golden])
    (logits,) = open_file(file, "cpu", 1).run(None, {"image": batch})
    assert 0 < np.abs(logits - expected).max() < 0.3 * expected.std()
    openvino = pytest.importorskip("openvino")
    artefact = TARGETS["openvino-int8"].make(context, tmp_path).artefact
    assert artefact.files == ("model.int8.xml", "model.int8.bin")
    types = {
        output.element_type.get_type_name()
        for node in openvino.Core().read_model(tmp_path / artefact.file).get_ops()
        for output in node.outputs()
    }
    assert "i8" in types


@pytest.mark.slow
def test_kept_nodes_stay_in_floating_point(context: ExportContext, tmp_path: Path) -> None:
    graph = Graph(fused_graph(context.model, context))
    trials = Trials.over(context.calibration, context.contract, tmp_path)
    calibrated = calibrate(graph, observe(graph, context.calibration, trials), "largest")
    everything = frozenset(integer_nodes(graph))
    convolutions = [key for key in integer_nodes(graph) if graph.nodes[key].op_type == "Conv"]
    assert not nodes(to_int8(graph, everything, calibrated), "QuantizeLinear")
    kept = to_int8(graph, {convolutions[0], *graph.consumers[convolutions[0]]}, calibrated)
    assert sum(node.input[1].endswith("_rounded") for node in nodes(kept, "Conv")) == 1
    (logits,) = (values for _, values in trials.logits(kept, context.calibration[:1]))
    assert np.isfinite(logits).all()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["unetplusplus", "unet", "deeplabv3"])
def test_real_networks_are_rounded_by_every_way_to_cut_ranges(
    architecture: str, context: ExportContext, tmp_path: Path
) -> None:
    """The parallel branches of DeepLabV3 once asked for the range of a tensor that had none yet."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(architecture, "resnet18", channels=3, classes=1).eval()
    images = [torch.from_numpy(item.tensor)[None] for item in context.golden]
    with torch.inference_mode():
        logits = [model(image)[0].numpy() for image in images]
    golden = tuple(
        dataclasses.replace(item, logits=one) for item, one in zip(context.golden, logits, strict=True)
    )
    changed = dataclasses.replace(context, model=model, golden=golden, calibration=golden)
    graph = Graph(fused_graph(model, changed))
    trials = Trials.over(golden, changed.contract, tmp_path)
    seen = observe(graph, golden, trials)
    for kind in KINDS:
        rounded = to_int8(graph, frozenset(), calibrate(graph, seen, kind))
        assert nodes(rounded, "QuantizeLinear")
        (found,) = (values for _, values in trials.logits(rounded, golden[:1]))
        assert np.abs(found - golden[0].logits).mean() < 0.5 * golden[0].logits.std()


@pytest.mark.slow
def test_a_mirrored_network_has_each_kernel_once_and_each_layer_as_one_unit(
    context: ExportContext, tmp_path: Path
) -> None:
    changed = dataclasses.replace(context, model=Mirrored(context.model).eval())
    graph = Graph(fused_graph(changed.model, changed))
    trials = Trials.over(context.calibration, context.contract, tmp_path)
    seen = observe(graph, context.calibration, trials)
    model = to_int8(graph, frozenset(), calibrate(graph, seen, "largest"))
    kernels = [tensor for tensor in model.graph.initializer if tensor.name.endswith("_weight")]
    assert len(nodes(model, "Conv")) == 6
    assert len(kernels) == 2
    units = [unit for unit in search.units_of(graph, dict.fromkeys(graph.nodes, 1)) if len(unit.nodes) > 1]
    assert sorted(sum("conv" in name for name in unit.nodes) for unit in units) == [2, 2, 2]


@pytest.mark.slow
def test_a_layer_whose_rounding_moves_masks_is_kept(
    context: ExportContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One channel of the first layer is 3,000 times as large as the others, and the second takes it back."""
    import torch

    monkeypatch.setattr(search, "MOST_KEPT", 1.0)  # each of the three layers is a large share
    first, second = context.model.first, context.model.second
    with torch.no_grad():
        first[1].weight[0] *= 3000
        first[1].bias[0] *= 3000
        second[0].weight[:, 0] /= 3000
        context.model.head.weight[:, 0] /= 3000
    facts = int8.make(context, tmp_path).facts["int8"]
    assert facts["kept"]
    assert facts["goal_met"]
    assert facts["after"]["relative_error"] < facts["before"]["relative_error"]


@pytest.mark.slow
def test_without_calibration_images_it_is_refused(context: ExportContext, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no calibration images, expected some: give --calibration"):
        int8.make(dataclasses.replace(context, calibration=()), tmp_path)


@pytest.mark.slow
def test_a_network_whose_masks_int8_moves_is_refused(context: ExportContext, tmp_path: Path) -> None:
    wrong = [dataclasses.replace(one, logits=one.logits + np.float32(1)) for one in context.golden]
    with pytest.raises(CheckFailedError, match="leave out the target onnx-int8"):
        int8.make(dataclasses.replace(context, calibration=tuple(wrong)), tmp_path)


def test_ranges_hold_zero_and_cut_outliers() -> None:
    counts = np.zeros(4096)
    counts[:2048] = 1000.0
    counts[-1] = 1.0
    histogram = Histogram(0.0, 8.0, counts)
    largest, percentile, squared = (histogram.cut(kind) for kind in KINDS)
    assert (largest.high, largest.zero) == (8.0, 0)
    assert 3.9 < percentile.high < 4.1
    assert percentile.high * 0.9 < squared.high < 8.0
