import pytest
import torch

from tumorseg_export.onnx.fuse import fuse
from tumorseg_train.networks.mirrored import Mirrored
from tumorseg_train.networks.models import build_model


def norms(model: torch.nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, torch.nn.BatchNorm2d)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`timm-` encoders:DeprecationWarning")
@pytest.mark.parametrize(
    ("architecture", "encoder", "never_run"),
    [
        ("unetplusplus", "resnet18", []),
        ("unet", "resnet18", []),
        ("deeplabv3", "resnet18", []),
        ("unetplusplus", "timm-tf_efficientnet_lite0", ["encoder.bn2"]),  # the others carry the activation
    ],
)
def test_every_batchnorm_goes_and_the_logits_stay(
    architecture: str, encoder: str, never_run: list[str]
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(architecture, encoder, channels=3, classes=1)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.normal_(module.bias, std=0.1)
                module.momentum = None
        images = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        model.train()(images)
        before = model.eval()(images)
        fused = fuse(model, 3)
        after = fused(images)
        again = model(images)
    assert norms(fused) == never_run
    assert len(norms(model)) > 20
    assert torch.equal(before, again), "the model itself was changed"
    assert float((before - after).abs().max()) < 1e-3 * float(before.std())


def test_batchnorm_that_follows_no_single_convolution_stays() -> None:
    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared = torch.nn.Conv2d(3, 3, 1)
            self.once, self.twice = torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3)
            self.conv, self.norm = torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.once(self.shared(x))
            x = self.twice(self.twice(self.shared(x)))  # one convolution and one BatchNorm, run twice
            return self.norm(self.conv(x))

    odd = Odd().eval()
    assert norms(fuse(odd, 3)) == ["once", "twice"]


def test_a_mirrored_network_is_folded_as_the_network_is() -> None:
    """Each of its layers runs twice; INT8 lost its masks while every BatchNorm stayed."""

    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = torch.nn.Conv2d(3, 1, 3), torch.nn.BatchNorm2d(1)
            torch.nn.init.constant_(self.norm.running_var, 4.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.conv(x))

    mirrored = Mirrored(Small()).eval()
    fused, images = fuse(mirrored, 3), torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        assert torch.allclose(fused(images), mirrored(images), atol=1e-6)
    assert norms(fused) == []
