from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tumorseg_export.checkpoint.context import ExportContext
from tumorseg_export.onnx import export as onnx_export
from tumorseg_export.onnx.complexity import count_flops
from tumorseg_export.onnx.export import to_onnx
from tumorseg_export.onnx.passes.choice import write_folded
from tumorseg_export.targets import mnn, ncnn, openvino
from tumorseg_runtime.backends.onnxruntime import open_file
from tumorseg_runtime.core.contract import Contract
from tumorseg_train.networks.models import build_model

PASSES = {"mnn": mnn.PASSES, "ncnn": ncnn.PASSES, "openvino": openvino.PASSES}
UPSAMPLING = {
    "mnn": "upsampling as four Conv",
    "ncnn": "upsampling as ConvTranspose",
    "openvino": "upsampling as ConvTranspose",
}


@pytest.mark.slow
@pytest.mark.parametrize("backend", PASSES)
def test_the_folded_graph_gives_the_same_logits_with_fewer_operations(
    backend: str, small_context: ExportContext, tmp_path: Path
) -> None:
    onnx_export.make(small_context, tmp_path)
    graph, folded = tmp_path / onnx_export.FILE, tmp_path / "folded.onnx"
    before = graph.read_bytes()
    assert write_folded(graph, folded, PASSES[backend]) == {UPSAMPLING[backend]: 1}
    assert graph.read_bytes() == before
    assert count_flops(onnx.load(folded)) < count_flops(onnx.load(graph))
    batch = np.stack([item.tensor for item in small_context.golden])
    expected, got = (open_file(path, "cpu", 1).run(None, {"image": batch})[0] for path in (graph, folded))
    assert np.abs(got - expected).max() < 1e-5 * expected.std()


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "stages"), [("mnn", True), ("ncnn", False), ("openvino", False)])
def test_dilated_stages_are_folded_where_that_profits(backend: str, stages: bool, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model("deeplabv3", "resnet18", channels=3, classes=1).eval()
    graph = tmp_path / "model.onnx"
    onnx.save(to_onnx(model, Contract(height=64, width=64)), graph)
    changed = write_folded(graph, tmp_path / "folded.onnx", PASSES[backend])
    assert changed.get("dilation", 0) == (8 if stages else 0)


@pytest.mark.slow
def test_a_graph_with_nothing_to_fold_stays_as_it_is(tmp_path: Path) -> None:
    graph, folded = tmp_path / "model.onnx", tmp_path / "folded.onnx"
    network = torch.nn.Conv2d(3, 1, 3, padding=1).eval()
    onnx.save(to_onnx(network, Contract(height=64, width=64)), graph)
    for backend in PASSES:
        assert write_folded(graph, folded, PASSES[backend]) == {}
        assert onnx.load(folded) == onnx.load(graph)
