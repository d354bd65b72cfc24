"""A small network with the operators of U-Net, U-Net++ and DeepLabV3, for a machine with torch and no smp."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn import functional


class SmallNetwork(torch.nn.Module):
    """Strided, dilated and 1x1 convolutions, normalisation, nearest and bilinear upsampling, pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = _block(3, 16), _block(16, 32, stride=2)
        self.deep = torch.nn.ModuleList([_block(32, 32, dilation=rate) for rate in (1, 2, 4)])
        self.join, self.up = _block(4 * 32, 32, size=1), _block(32 + 16, 16)
        self.head = torch.nn.Conv2d(16, 1, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """float (N, 3, H, W), H and W multiples of 4 -> logits (N, 1, H, W)."""
        shallow = self.stem(image)  # (N, 16, H, W)
        low = self.down(functional.max_pool2d(shallow, 2))  # (N, 32, H / 4, W / 4)
        pooled = functional.adaptive_avg_pool2d(low, 1)
        pooled = functional.interpolate(pooled, size=low.shape[2:], mode="bilinear", align_corners=False)
        joined = self.join(torch.cat([*(one(low) for one in self.deep), pooled], 1))
        half = functional.interpolate(joined, scale_factor=2, mode="bilinear", align_corners=True)
        full = functional.interpolate(half, scale_factor=2, mode="nearest")
        logits: torch.Tensor = self.head(self.up(torch.cat([full, shallow], 1)))
        return logits


def _block(
    taken: int, given: int, *, size: int = 3, stride: int = 1, dilation: int = 1
) -> torch.nn.Sequential:
    padding = dilation * (size // 2)
    convolution = torch.nn.Conv2d(taken, given, size, stride, padding, dilation, bias=False)
    return torch.nn.Sequential(convolution, torch.nn.BatchNorm2d(given), torch.nn.ReLU(inplace=True))


def networks(*, small: bool) -> Iterator[tuple[str, torch.nn.Module]]:
    """The small one; unless no more is asked for and where smp is installed, the three architectures, too.
    All with random weights."""
    torch.manual_seed(0)
    yield "small network", SmallNetwork().eval()
    if small:
        return
    try:
        import segmentation_models_pytorch as smp
    except ModuleNotFoundError:
        return
    for name in ("Unet", "UnetPlusPlus", "DeepLabV3"):
        torch.manual_seed(0)
        yield f"{name} resnet18", getattr(smp, name)("resnet18", encoder_weights=None).eval()
