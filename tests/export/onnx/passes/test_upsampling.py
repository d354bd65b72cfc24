from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from tumorseg_export.onnx.complexity import count_flops
from tumorseg_export.onnx.export import to_onnx
from tumorseg_export.onnx.passes.upsampling import Form, fold_upsampling, phase_kernel, transposed_kernel
from tumorseg_runtime.backends.onnxruntime import open_file
from tumorseg_runtime.core.contract import Contract
from tumorseg_train.networks.models import build_model

FloatArray = npt.NDArray[np.float32]
CONTRACT = Contract(height=64, width=96)
FORMS: tuple[Form, ...] = ("phases", "transposed")


def run(model: onnx.ModelProto, folder: Path, batch: FloatArray) -> FloatArray:
    path = folder / "x.onnx"
    path.write_bytes(model.SerializeToString())
    (logits,) = open_file(path, "cpu", 1).run(None, {"image": batch})
    return np.asarray(logits)


def agree(first: onnx.ModelProto, second: onnx.ModelProto, folder: Path) -> None:
    """Both give the same logits up to float rounding, borders included, for batches of 1, 2 and 3."""
    onnx.checker.check_model(second, full_check=True)
    random = np.random.default_rng(9)
    for size in (1, 2, 3):
        batch = random.standard_normal((size, 3, CONTRACT.height, CONTRACT.width), np.float32)
        expected, got = run(first, folder, batch), run(second, folder, batch)
        assert got.shape == expected.shape
        assert expected.std() > 0
        assert np.abs(got - expected).max() < 5e-5 * expected.std()


class Block(torch.nn.Module):
    """One decoder block: a doubled tensor between two others; the last of its results reads what is given."""

    def __init__(self, mode: str = "nearest", factor: float = 2.0, kernel: int = 3) -> None:
        super().__init__()
        self.mode, self.factor = mode, factor
        self.stem = torch.nn.Conv2d(3, 5, 3, padding=1)
        self.down = torch.nn.Conv2d(5, 4, 3, padding=1, stride=int(factor))
        self.joined = torch.nn.Conv2d(14, 6, kernel, padding=kernel // 2)
        self.head = torch.nn.Conv2d(6, 1, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        fine = torch.relu(self.stem(image))
        coarse = torch.nn.functional.interpolate(self.down(fine), scale_factor=self.factor, mode=self.mode)
        logits: torch.Tensor = self.head(torch.relu(self.joined(torch.cat([fine, coarse, -fine], dim=1))))
        return logits


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("architecture", "blocks"), [("unet", 5), ("unetplusplus", 11)])
def test_decoders_keep_their_logits(architecture: str, blocks: int, form: Form, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(6)
        model = to_onnx(build_model(architecture, "resnet18", channels=3, classes=1).eval(), CONTRACT)
    before = model.SerializeToString()
    result = fold_upsampling(model, form)
    assert result.modified == blocks
    assert "Resize" not in {node.op_type for node in result.model.graph.node}
    assert count_flops(result.model) < 0.95 * count_flops(model)
    assert model.SerializeToString() == before
    agree(model, result.model, tmp_path)


@pytest.mark.parametrize("form", FORMS)
def test_upsampled_part_costs_four_ninths(form: Form, tmp_path: Path) -> None:
    model = to_onnx(Block().eval(), CONTRACT)
    result = fold_upsampling(model, form)
    assert result.modified == 1
    pixels = CONTRACT.height * CONTRACT.width
    saved = 2 * (9 - 4) * 4 * 6 * pixels  # of 4 of the 14 channels
    assert count_flops(model) - count_flops(result.model) == saved
    agree(model, result.model, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "factor", "kernel"), [("bilinear", 2.0, 3), ("nearest", 4.0, 3), ("nearest", 2.0, 5)]
)
def test_other_upsamplings_and_kernels_stay(mode: str, factor: float, kernel: int) -> None:
    model = to_onnx(Block(mode, factor, kernel).eval(), CONTRACT)
    result = fold_upsampling(model)
    assert result.modified == 0
    assert result.model is model


@pytest.mark.slow
def test_upsampling_that_is_also_read_elsewhere_stays_for_that(tmp_path: Path) -> None:
    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = torch.nn.Conv2d(3, 4, 3, padding=1, stride=2)
            self.up = torch.nn.Conv2d(4, 1, 3, padding=1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            large = torch.nn.functional.interpolate(self.down(image), scale_factor=2.0, mode="nearest")
            logits: torch.Tensor = self.up(large) + large[:, :1]
            return logits

    model = to_onnx(Twice().eval(), CONTRACT)
    result = fold_upsampling(model)
    assert result.modified == 1
    assert "Resize" in {node.op_type for node in result.model.graph.node}
    agree(model, result.model, tmp_path)


def test_kernels_are_sums_of_the_3x3_kernel() -> None:
    kernel = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    assert phase_kernel(kernel, 0, 0)[0, 0].tolist() == [[0, 3], [9, 24]]
    assert phase_kernel(kernel, 1, 1)[0, 0].tolist() == [[8, 7], [13, 8]]
    whole = transposed_kernel(kernel)[0, 0]
    assert whole.shape == (4, 4)
    assert whole.sum() == 4 * kernel.sum()  # each weight serves four output pixels
