from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from tumorseg_export.onnx.export import to_onnx
from tumorseg_export.onnx.passes.dilation import fold_dilation
from tumorseg_runtime.backends.onnxruntime import open_file
from tumorseg_runtime.core.contract import Contract
from tumorseg_train.networks.models import build_model

FloatArray = npt.NDArray[np.float32]
CONTRACT = Contract(height=64, width=96)  # at stride 8: 8 x 12, which 2 and 4 divide


class Stage(torch.nn.Module):
    """A stem, then a residual stage of dilation 2 with a 1x1 shortcut, then an undilated head."""

    def __init__(self, padding: int = 2) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.first = torch.nn.Conv2d(4, 6, 3, padding=padding, dilation=2)
        self.second = torch.nn.Conv2d(6, 6, 3, padding=2, dilation=2)
        self.shortcut = torch.nn.Conv2d(4, 6, 1)
        self.head = torch.nn.Conv2d(6, 1, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        stem = torch.relu(self.stem(image))
        inner = self.second(torch.relu(self.first(stem)))
        logits: torch.Tensor = self.head(torch.relu(inner + self.shortcut(stem)))
        return logits


def run(model: onnx.ModelProto, folder: Path, batch: FloatArray) -> FloatArray:
    path = folder / "x.onnx"
    path.write_bytes(model.SerializeToString())
    (logits,) = open_file(path, "cpu", 1).run(None, {"image": batch})
    return np.asarray(logits)


def agree(first: onnx.ModelProto, second: onnx.ModelProto, folder: Path, contract: Contract) -> None:
    """Both give the same logits up to float rounding, for batches of 1, 2 and 3, of different images."""
    onnx.checker.check_model(second, full_check=True)
    random = np.random.default_rng(8)
    for size in (1, 2, 3):
        batch = random.standard_normal((size, contract.channels, contract.height, contract.width), np.float32)
        expected, got = run(first, folder, batch), run(second, folder, batch)
        assert got.shape == expected.shape
        assert expected.std() > 0
        assert np.abs(got - expected).max() < 2e-5 * expected.std()


def ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def dilations(model: onnx.ModelProto) -> set[int]:
    return {
        value
        for node in model.graph.node
        for one in node.attribute
        if one.name == "dilations"
        for value in one.ints
    }


@pytest.fixture(scope="module")
def deeplab() -> onnx.ModelProto:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = build_model("deeplabv3", "resnet18", channels=3, classes=1).eval()
    return to_onnx(model, CONTRACT)


@pytest.mark.slow
def test_both_stages_of_deeplabv3_become_dense(deeplab: onnx.ModelProto, tmp_path: Path) -> None:
    before = deeplab.SerializeToString()
    result = fold_dilation(deeplab)
    assert result.modified == 8  # four convolutions each in layer3 and layer4 of resnet18
    assert dilations(deeplab) >= {2, 4}
    assert not dilations(result.model) & {2, 4}
    assert ops(result.model).count("SpaceToDepth") == 2  # once at each stage's entry, once at its exit
    assert ops(result.model).count("DepthToSpace") == 2
    assert deeplab.SerializeToString() == before
    agree(deeplab, result.model, tmp_path, CONTRACT)


@pytest.mark.slow
def test_work_and_weights_stay_the_same(deeplab: onnx.ModelProto) -> None:
    folded = fold_dilation(deeplab).model
    weights = {tensor.name: tensor.raw_data for tensor in deeplab.graph.initializer}
    new = {tensor.name: tensor.raw_data for tensor in folded.graph.initializer}
    assert {name for name in new if name not in weights} == {n for n in new if n.endswith("_shape")}
    assert all(new[name] == weights[name] for name in weights if name in new)
    convolutions = [node.op_type for node in deeplab.graph.node].count("Conv")
    assert ops(folded).count("Conv") == convolutions


def test_shortcut_shares_the_move_of_the_stage(tmp_path: Path) -> None:
    model = to_onnx(Stage().eval(), CONTRACT)
    result = fold_dilation(model)
    assert result.modified == 2
    assert ops(result.model).count("SpaceToDepth") == ops(result.model).count("DepthToSpace") == 1
    agree(model, result.model, tmp_path, CONTRACT)


@pytest.mark.slow
def test_size_that_dilation_does_not_divide_stays(tmp_path: Path) -> None:
    class Odd(Stage):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return super().forward(image[:, :, :63, :])

    exported = torch.onnx.export(
        Odd().eval(), (torch.zeros(2, 3, 64, 96),), dynamo=True, verbose=False, input_names=["image"],
        dynamic_shapes=({0: torch.export.Dim("batch")},), opset_version=18,
    )  # fmt: skip
    assert exported is not None
    assert fold_dilation(exported.model_proto).modified == 0


@pytest.mark.slow
@pytest.mark.parametrize("padding", [1, 3])
def test_padding_that_changes_the_size_stays(padding: int) -> None:
    class Shifted(Stage):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.head(torch.relu(self.first(torch.relu(self.stem(image)))))
            return torch.nn.functional.interpolate(logits, size=image.shape[2:])

    model = to_onnx(Shifted(padding).eval(), CONTRACT)
    assert fold_dilation(model).modified == 0


@pytest.mark.slow
def test_network_without_dilation_stays_as_it_is() -> None:
    model = to_onnx(build_model("unet", "resnet18", channels=3, classes=1).eval(), CONTRACT)
    result = fold_dilation(model)
    assert result.modified == 0
    assert result.model is model
