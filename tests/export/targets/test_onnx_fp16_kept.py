"""Layers that FP16 would break, or that move the masks, stay in FP32: no more, no fewer."""

import copy
import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from fakes.golden import expected_logits, golden_logits
from tumorseg_export.checkpoint.context import ExportContext
from tumorseg_export.engine.tensorrt_build import BuildOptions, build_engine
from tumorseg_export.precision import search as fp16_search
from tumorseg_export.targets import onnx_fp16 as fp16
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import CheckFailedError
from tumorseg_runtime.device.engines import Profile
from tumorseg_runtime.parity.reference import Golden
from tumorseg_runtime.processing.preprocess import Preprocessor


class Chain(torch.nn.Module):
    """A stem, a narrow pair of 1x1 convolutions with 1 % of the multiplications, a body and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.squeeze = torch.nn.Conv2d(8, 4, 1)
        self.expand = torch.nn.Conv2d(4, 8, 1)
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(8, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(16, 16, 3, padding=1)
        )
        self.norm = torch.nn.BatchNorm2d(16)  # behind a pooling: it cannot be folded
        self.head = torch.nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        narrow = torch.relu(self.squeeze(torch.relu(self.stem(image))))
        wide = torch.nn.functional.max_pool2d(self.body(self.expand(narrow)), 3, stride=1, padding=1)
        logits: torch.Tensor = self.head(self.norm(wide))
        return logits


@pytest.fixture
def chain() -> Chain:
    """A fresh seeded `Chain` in evaluation mode whose logits have mean 0 and deviation 3 over noise."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = Chain().eval()
        with torch.no_grad():
            logits = model(torch.randn(4, 3, 64, 64))
            model.head.weight *= 3 / logits.std()
            model.head.bias.copy_((model.head.bias - logits.mean()) * 3 / logits.std())
    return model


CONTRACT = Contract(height=64, width=64)
WithGolden = Callable[[torch.nn.Module, Contract], ExportContext]
Change = Callable[[Chain], None]


def offset(model: Chain) -> None:
    """600 is added and taken away again: in FP16 only half units are left of what was in between."""
    model.squeeze.bias += 600
    model.expand.bias -= 600 * model.expand.weight.sum(dim=(1, 2, 3))


def scale_up(model: Chain) -> None:
    """Activations beyond FP16 between two layers whose weights fit into it."""
    model.squeeze.weight.mul_(1e5)
    model.squeeze.bias.mul_(1e5)
    model.expand.weight.mul_(1e-5)


def scale_weights(model: Chain) -> None:
    """One layer's weights times 10,000, and nothing takes it back."""
    model.head.weight.mul_(1e4)
    model.head.bias.mul_(1e4)


def large_weight(model: Chain) -> None:
    """One weight that FP16 does not have, on a channel that is hardly ever positive, so that logits stay."""
    model.head.weight[0, 0, 0, 0] = 7e4
    model.norm.weight[0] = 1e-6
    model.norm.bias[0] = 0.0


def large_variance(model: Chain) -> None:
    """The BatchNorm that cannot be folded has a variance of a million, and a weight that takes it back."""
    model.norm.running_var.fill_(1e6)
    model.norm.weight.mul_(1e3)


OVERFLOWS: dict[str, tuple[Change, set[str]]] = {
    "activation": (scale_up, {"squeeze", "expand"}),
    "weights": (large_weight, {"head"}),
    "scaled": (scale_weights, {"head"}),
    "variance": (large_variance, {"norm"}),
}


def types_meet(path: Path) -> dict[int, int]:
    """How many Conv work in each element type; fails where any node mixes types."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        types[value.name] = value.type.tensor_type.elem_type
    counts: dict[int, int] = {}
    for node in graph.node:
        used = {types[name] for name in (*node.input, *node.output) if name and types[name] in (1, 10)}
        assert len(used) == 1 or node.op_type in ("Cast", "Resize"), node
        if node.op_type == "Conv":
            counts[used.pop()] = counts.get(types[node.output[0]], 0) + 1
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("case", OVERFLOWS)
def test_what_fp16_cannot_hold_stays_in_fp32(
    chain: Chain, tmp_path: Path, case: str, with_golden: WithGolden
) -> None:
    change, layers = OVERFLOWS[case]
    with torch.no_grad():
        change(chain)
    context = with_golden(chain, CONTRACT)
    facts = fp16.make(context, tmp_path).facts["fp16"]
    by_range = [one for one in facts["kept"] if one["reason"] == "range"]
    modules = {one["layer"].partition(" ")[0] for one in by_range}
    assert layers <= modules
    assert "stem" not in modules
    assert max(one["value"] for one in by_range) * facts["headroom"] > 65504
    assert facts["kept_multiplications"] < 0.5
    assert (facts["kept_multiplications"] > 0) == (case != "variance")  # a BatchNorm multiplies too little
    logits, expected = golden_logits(tmp_path / "model.fp16.onnx", context), expected_logits(context)
    assert np.abs(logits - expected).max() < 0.02 * expected.std()
    assert set(types_meet(tmp_path / "model.fp16.onnx")) == ({10} if case == "variance" else {1, 10})


def test_whole_fp16_would_break_those_networks(chain: Chain, tmp_path: Path, with_golden: WithGolden) -> None:
    """Else the test above shows nothing."""
    for case in ("activation", "weights", "variance"):
        with torch.no_grad():
            model = copy.deepcopy(chain)
            OVERFLOWS[case][0](model)
        context = with_golden(model, CONTRACT)
        image = torch.from_numpy(context.golden[0].tensor)[None]
        with torch.inference_mode():
            logits = model.half()(image.half())[0].float().numpy()
        error = np.abs(logits - context.golden[0].logits).max()
        assert not error < 0.25 * context.golden[0].logits.std(), case


@pytest.mark.slow
def test_layer_that_moves_the_masks_is_found(chain: Chain, tmp_path: Path, with_golden: WithGolden) -> None:
    with torch.no_grad():
        offset(chain)
    context = with_golden(chain, CONTRACT)
    facts = fp16.make(context, tmp_path).facts["fp16"]
    kept = {one["layer"] for one in facts["kept"]}
    assert {one["reason"] for one in facts["kept"]} == {"effect"}
    assert "squeeze" in kept
    assert not kept & {"body.0", "body.2", "head"}
    assert facts["goal_met"] is True
    assert (
        facts["before"]["relative_error"] > facts["goal"]["relative_error"] > facts["after"]["relative_error"]
    )
    assert facts["after"]["flipped"] < facts["before"]["flipped"]
    logits, expected = golden_logits(tmp_path / "model.fp16.onnx", context), expected_logits(context)
    error = float(np.abs(logits - expected).max() / expected.std())
    assert error == pytest.approx(facts["after"]["relative_error"], rel=0.01)


@pytest.mark.slow
def test_found_layers_are_the_same_again(chain: Chain, tmp_path: Path, with_golden: WithGolden) -> None:
    with torch.no_grad():
        offset(chain)
    context = with_golden(chain, CONTRACT)
    files = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        fp16.make(context, tmp_path / name)
        files.append((tmp_path / name / "model.fp16.onnx").read_bytes())
    assert files[0] == files[1]


def test_network_that_would_be_fp32_is_refused_by_layer_image_and_figure(
    chain: Chain, tmp_path: Path, with_golden: WithGolden
) -> None:
    with torch.no_grad():
        chain.stem.weight.mul_(1e6)
    with pytest.raises(
        CheckFailedError, match=r"layer \w+.* reaches \d.*e\+\d+ \(noise-\d\), FP16 ends at 65504, .* 100% of"
    ):
        fp16.make(with_golden(chain, CONTRACT), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_network_that_overflows_fp32_is_refused(
    chain: Chain, tmp_path: Path, with_golden: WithGolden
) -> None:
    golden = with_golden(chain, CONTRACT)
    with torch.no_grad():
        chain.stem.weight.mul_(1e38)
    with pytest.raises(CheckFailedError, match=r"layer \w+.* reaches inf in FP32 already \(noise-0\)"):
        fp16.make(golden, tmp_path)


@pytest.mark.slow
def test_masks_that_cannot_be_kept_are_refused(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_golden: WithGolden
) -> None:
    with torch.no_grad():
        offset(chain)
    monkeypatch.setattr(fp16_search, "MOST_KEPT", 1e-6)  # no layer is so small
    with pytest.raises(
        CheckFailedError, match=r"decides other than PyTorch on noise-0 .* with no layer in FP32"
    ):
        fp16.make(with_golden(chain, CONTRACT), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("case", ["activation", "scaled", "variance"])
def test_tensorrt_rtx_builds_mixed_precision(
    chain: Chain, tmp_path: Path, case: str, with_golden: WithGolden
) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    with torch.no_grad():
        OVERFLOWS[case][0](chain)
    fp16.make(with_golden(chain, CONTRACT), tmp_path)
    data = (tmp_path / "model.fp16.onnx").read_bytes()
    options = BuildOptions(Profile(1, 2, 3), capabilities=(89,))
    assert build_engine(trt, data, CONTRACT, options, lambda line: None, name="model.fp16.onnx").data


@pytest.mark.slow
def test_card_names_the_kept_layers(chain: Chain, tmp_path: Path, with_golden: WithGolden) -> None:
    with torch.no_grad():
        scale_up(chain)
    facts = fp16.make(with_golden(chain, CONTRACT), tmp_path).facts["fp16"]
    text = "\n".join(fp16.describe(json.loads(json.dumps(facts))))
    assert re.search(r"\| squeeze \| it reaches [\d.e+]+ \(noise-\d\); FP16 ends at 65504 \|", text)
    assert f"apart from {len(facts['kept'])} layers" in text


@pytest.mark.slow
def test_range_decides_on_calibration_images_too(
    chain: Chain, tmp_path: Path, with_golden: WithGolden
) -> None:
    """An activation that only a calibration image drives beyond FP16: it is 255 times as bright."""
    contract = dataclasses.replace(CONTRACT, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    preprocess = Preprocessor(contract)

    def image(name: str, pixels: npt.NDArray[np.uint8]) -> Golden:
        tensor = preprocess(pixels)
        with torch.inference_mode():
            logits = chain(torch.from_numpy(tensor)[None])[0].numpy()
        return Golden(name, pixels, tensor, logits)

    with torch.no_grad():
        chain.stem.weight.mul_(32)
        chain.squeeze.weight.mul_(20_000)
        chain.expand.weight.mul_(1 / 640_000)
    random = np.random.default_rng(3)
    dark = tuple(image(f"dark-{n}", random.integers(0, 2, (64, 64, 3)).astype(np.uint8)) for n in range(3))
    context = dataclasses.replace(with_golden(chain, contract), golden=dark)
    assert fp16.make(context, tmp_path).facts["fp16"]["kept"] == []
    bright = image("bright", random.integers(0, 256, (64, 64, 3)).astype(np.uint8))
    facts = fp16.make(dataclasses.replace(context, calibration=(bright,)), tmp_path).facts["fp16"]
    assert facts["images"] == 4
    assert {one["image"] for one in facts["kept"] if one["reason"] == "range"} == {"bright"}
