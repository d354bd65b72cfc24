"""A network that exports in a second, for tests of single steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from tumorseg_export.checkpoint.context import ExportContext
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.parity.reference import Golden
from tumorseg_runtime.processing.preprocess import Preprocessor
from tumorseg_train.networks.models import build_model


class SmallNetwork(torch.nn.Module):
    """Three convolutions, the first two with BatchNorm, at half size in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, padding=1, bias=False), torch.nn.BatchNorm2d(8), torch.nn.ReLU()
        )
        self.second = torch.nn.Sequential(
            torch.nn.Conv2d(8, 8, 3, stride=2, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU()
        )
        self.head = torch.nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        fine = self.first(image)
        coarse = torch.nn.functional.interpolate(self.second(fine), scale_factor=2.0, mode="nearest")
        logits: torch.Tensor = self.head(torch.cat([fine, coarse], dim=1))
        return logits


def with_golden(model: torch.nn.Module, contract: Contract) -> ExportContext:
    """A source of this network with three golden images of noise."""
    random = np.random.default_rng(3)
    preprocess = Preprocessor(contract)
    golden = []
    for number in range(3):
        pixels = random.integers(0, 256, (contract.height, contract.width), dtype=np.uint8)
        tensor = preprocess(pixels)
        with torch.inference_mode():
            golden.append(
                Golden(f"noise-{number}", pixels, tensor, model(torch.from_numpy(tensor)[None])[0].numpy())
            )
    return ExportContext(model, contract, {"checkpoint_sha256": "0" * 64}, tuple(golden))


@pytest.fixture(scope="session", autouse=True)
def _few_phantoms() -> Iterator[None]:
    """To draw 48 of them takes longer than most exports of a small network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tumorseg_export.references.folder_images.DRAWN", 8)
        yield


@pytest.fixture
def small_context() -> ExportContext:
    """A fresh `SmallNetwork` at 64x64, seeded, with BatchNorm statistics of noise."""
    contract = Contract(height=64, width=64)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = SmallNetwork()
        for _ in range(10):
            model(torch.randn(4, 3, 64, 64))
    return with_golden(model.eval(), contract)


@pytest.fixture(name="with_golden")
def with_golden_fixture() -> Callable[[torch.nn.Module, Contract], ExportContext]:
    """`with_golden`, for tests that make networks of their own."""
    return with_golden


@pytest.fixture(scope="session")
def unet() -> torch.nn.Module:
    """U-Net, resnet18, 3 channels, 1 class. Not to be changed."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return build_model("unet", "resnet18", channels=3, classes=1).eval()


@pytest.fixture(scope="session")
def state(unet: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights of `unet`. Not to be changed."""
    return unet.state_dict()
