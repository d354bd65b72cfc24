"""No exported graph computes at run time what is known before, and every logit stays as it was."""

from __future__ import annotations

import functools
from collections import Counter
from unittest import mock

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from tumorseg_export.onnx import export as onnx_export
from tumorseg_export.onnx.fuse import fuse
from tumorseg_export.onnx.passes.constant_shapes import ConstantShapes, scales_between
from tumorseg_export.onnx.passes.deploy import to_deploy
from tumorseg_export.precision.fp16_graph import Graph, to_mixed
from tumorseg_runtime.core.contract import Contract
from tumorseg_train.networks.models import build_model

CONTRACT = Contract(height=64, width=96)
EXPORTED = ("unet", "deeplabv3")  # tests/benchmarks/export_matrix has every architecture


def network(architecture: str) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_model(architecture, "resnet18", channels=3, classes=1).eval()


def both(network: torch.nn.Module) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The graph of a network as torch gives it, and as `to_onnx` does, from one export."""
    raw: list[onnx.ModelProto] = []

    class Spy(ConstantShapes):
        def call(self, model: ir.Model) -> ir.passes.PassResult:
            raw.append(ir.to_proto(model))
            return super().call(model)

    with mock.patch.object(onnx_export, "ConstantShapes", Spy):
        done = onnx_export.to_onnx(network, CONTRACT)
    return raw[0], done


@functools.cache
def both_of(architecture: str) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """`both` of a network of this architecture. Not to be changed."""
    return both(network(architecture))


def logits(model: onnx.ModelProto, level: str) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    images = np.random.default_rng(0).standard_normal((3, 3, 64, 96), np.float32)
    return session.run(None, {"image": images})[0]


def sized(model: onnx.ModelProto) -> list[str]:
    """The Resizes that take `sizes`."""
    return [node.name for node in model.graph.node if node.op_type == "Resize" and len(node.input) > 3]


def measuring(model: onnx.ModelProto) -> list[str]:
    return [node.name for node in model.graph.node if node.op_type == "Shape"]


@pytest.mark.slow
@pytest.mark.parametrize("architecture", EXPORTED)
def test_a_network_has_constant_scales_and_the_same_logits(architecture: str) -> None:
    before, after = both_of(architecture)
    onnx.checker.check_model(after, full_check=True)
    assert not sized(after)
    assert not measuring(after)
    assert sized(before)  # else the pass is not needed any more
    assert measuring(before)
    # Full optimisation takes another kernel for a bilinear Resize of constant scales: the level below it.
    one, other = (logits(model, "ORT_ENABLE_EXTENDED") for model in (before, after))
    assert one.std() > 1e-3
    assert np.array_equal(one.view(np.uint32), other.view(np.uint32))
    one, other = (logits(model, "ORT_ENABLE_ALL") for model in (before, after))
    if architecture == "unet":
        assert np.array_equal(one.view(np.uint32), other.view(np.uint32))
    np.testing.assert_allclose(other, one, rtol=0, atol=1e-5 * one.std())


@pytest.mark.slow
@pytest.mark.parametrize("architecture", EXPORTED)
def test_deploy_forms_and_fp16_read_no_shape_either(architecture: str) -> None:
    _, model = both_of(architecture)
    mixed = to_mixed(Graph(onnx_export.to_onnx(fuse(network(architecture), 3), CONTRACT)), frozenset())
    forms = [mixed, *(to_deploy(model, CONTRACT, gray=gray).model for gray in (False, True))]
    for form in forms:
        onnx.checker.check_model(form, full_check=True)
        assert not sized(form)
        assert not measuring(form)


@pytest.mark.slow
def test_a_norm_by_groups_and_an_upsampling_to_a_size_read_no_shape() -> None:
    class Views(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            small = torch.nn.functional.avg_pool2d(image, 2)
            norm = torch.nn.functional.group_norm(small, 3)
            size = image.shape[2:]
            return torch.nn.functional.interpolate(norm, size=size, mode="bilinear").sum(1, keepdim=True)

    model = onnx_export.to_onnx(Views().eval(), CONTRACT)
    assert not sized(model)
    assert not measuring(model)
    assert logits(model, "ORT_ENABLE_ALL").shape == (3, 1, 64, 96)


class Repeated(torch.nn.Module):
    """A token of no size of its own in front of each image's pixels, and one of the image's beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.token = torch.nn.Parameter(torch.arange(3.0).reshape(1, 1, 3))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        pixels = image.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(image.shape[0], -1, -1), pixels], dim=1)
        own = tokens[:, 1:2].expand_as(pixels)
        heads = (tokens[:, 1:] + own + tokens[:, :1]).reshape(image.shape[0], 64, 96, 3)
        return heads.permute(0, 3, 1, 2).sum(1, keepdim=True)


class Strided(torch.nn.Module):
    """Memory read in its own order, or backwards by rows."""

    def __init__(self, in_order: bool) -> None:
        super().__init__()
        self.in_order = in_order

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        pooled = torch.nn.functional.avg_pool2d(image, (64, 96))
        strides = (3, 1, 1, 1) if self.in_order else (3, 0, 1, 1)
        return image.sum(1, keepdim=True) + pooled.as_strided(pooled.shape, strides).sum(1, keepdim=True)


@pytest.mark.parametrize(
    "net", [Repeated(), Strided(True), Strided(False)], ids=["repeated", "order", "other"]
)
def test_what_is_repeated_or_gathered_stays_what_it_was(net: torch.nn.Module) -> None:
    before, after = both(net.eval())
    onnx.checker.check_model(after, full_check=True)
    one, other = (logits(model, "ORT_ENABLE_ALL") for model in (before, after))
    assert np.array_equal(one.view(np.uint32), other.view(np.uint32))
    kinds = Counter(node.op_type for node in after.graph.node)
    if isinstance(net, Repeated):
        assert kinds["Shape"] == 1
        (count,) = (node.output[0] for node in after.graph.node if node.op_type == "Shape")
        assert [node.op_type for node in after.graph.node if count in node.input] == ["Expand"]
    else:
        assert kinds["Gather"] == (0 if net.in_order else 1)


@pytest.mark.parametrize(
    ("image", "result", "scales"),
    [
        (("n", 3, 8, 12), ("n", 3, 16, 36), [1, 1, 2, 3]),
        (("n", 3, 3, 1), ("n", 3, 8, 12), [1, 1, np.float32(8) / np.float32(3), 12]),
        (("n", 3, 41, 8), ("n", 3, 1, 8), None),  # 41 * float32(1 / 41) is below 1, also in float32
        (("n", 3, 62, 62), ("n", 3, 64, 64), None),  # 62 * float32(64 / 62) is below 64, but not in float32
        (("n", 3, 8, 12), ("m", 3, 16, 36), None),
        (("n", 3, 8, 12), ("n", 6, 16, 36), None),
        (("n", 3, "h", 12), ("n", 3, 16, 36), None),
        (("n", 3, 8), ("n", 3, 16), None),
    ],
)
def test_scales_are_given_only_where_they_are_exact(
    image: tuple[int | str, ...], result: tuple[int | str, ...], scales: list[float] | None
) -> None:
    got = scales_between(ir.Shape(image), ir.Shape(result))
    assert got is None if scales is None else np.array_equal(got, np.float32(scales))
