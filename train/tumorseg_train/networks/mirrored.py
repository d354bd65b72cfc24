"""A network that looks at each image twice: as it is, and in a mirror."""

from __future__ import annotations

import torch


class Mirrored(torch.nn.Module):
    """The mean of a network's logits on an image and on its mirror image, left and right exchanged.

    Twice the work for masks that are a little better: in the mirror the network errs otherwise, and the mean
    of the two errs less (test-time augmentation). It is part of the network, so that what is exported,
    compared and served is this mean. float (N, C, h, w) -> logits float (N, K, h, w).
    """

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The mean of both answers, the mirror's turned back."""
        seen = self.network(images)
        mirrored = self.network(images.flip(-1)).flip(-1)
        return torch.as_tensor((seen + mirrored) / 2)
