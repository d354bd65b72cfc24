"""The cases of the export matrix: architectures, a small encoder of each family, channels, classes."""

from __future__ import annotations

import dataclasses
import itertools

from tumorseg_train.networks.models import ARCHITECTURES

ENCODERS = {  # and the family, of which each is a small one
    "resnet18": "ResNet",
    "mobilenet_v2": "MobileNet",
    "timm-tf_efficientnet_lite0": "EfficientNet",
    "tu-regnetx_002": "RegNet, of timm",
    "tu-convnext_atto": "ConvNeXt, of timm",
    "mit_b0": "Mix Transformer",
    "tu-vit_tiny_patch16_224": "Vision Transformer, of timm",
}
CHANNELS, CLASSES = (1, 3), (1, 3)
SIZE, LARGER = (64, 96), (128, 160)  # height and width, unequal, so that exchanged axes are seen
NEEDS_LARGER = {"pan"}  # its pools need 128 pixels


@dataclasses.dataclass(frozen=True)
class Case:
    """One network of the matrix."""

    architecture: str
    encoder: str
    channels: int
    classes: int

    @property
    def name(self) -> str:
        """Also of its file."""
        return f"{self.architecture}-{self.encoder}-{self.channels}-{self.classes}"

    @property
    def first(self) -> bool:
        """Whether it is the first of its pair of architecture and encoder, in the order of `whole`."""
        pair = (self.architecture, self.encoder)
        return self == next(
            (one for one in COVER if (one.architecture, one.encoder) == pair), Case(*pair, 3, 1)
        )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input in pixels."""
        return LARGER if self.architecture in NEEDS_LARGER else SIZE


# What CI runs: each architecture and each encoder, and gray and RGB with one and three classes.
COVER = (
    Case("unet", "resnet18", 1, 3),
    Case("unetplusplus", "mobilenet_v2", 3, 1),
    Case("deeplabv3", "timm-tf_efficientnet_lite0", 1, 1),
    Case("deeplabv3plus", "tu-regnetx_002", 3, 3),
    Case("dpt", "tu-vit_tiny_patch16_224", 3, 3),
    Case("fpn", "tu-convnext_atto", 3, 1),
    Case("linknet", "tu-regnetx_002", 1, 3),
    Case("manet", "resnet18", 3, 3),
    Case("pan", "mobilenet_v2", 1, 1),
    Case("pspnet", "timm-tf_efficientnet_lite0", 3, 3),
    Case("segformer", "mit_b0", 1, 1),
    Case("upernet", "tu-convnext_atto", 1, 3),
)


def whole() -> list[Case]:
    """Every case: those of the cover first, then each pair of architecture and encoder before another one."""
    every = itertools.product(reversed(CHANNELS), CLASSES, ARCHITECTURES, ENCODERS)
    cases = (Case(architecture, encoder, *numbers) for *numbers, architecture, encoder in every)
    return list(dict.fromkeys([*COVER, *cases]))
