"""The mirrored network: the same answer, mirrored, for an image and its mirror image."""

import torch

from tumorseg_train.networks.mirrored import Mirrored
from tumorseg_train.networks.models import build_model


def test_answers_with_the_mean_over_image_and_mirror_image() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_model("unet", "resnet18", channels=3, classes=2).eval()
        image = torch.randn(2, 3, 64, 32)
    with torch.inference_mode():
        once, twice = network(image), Mirrored(network)(image)
        mirrored = Mirrored(network)(image.flip(-1))
    assert not torch.allclose(once, twice, atol=1e-4)  # it is another network
    torch.testing.assert_close(mirrored.flip(-1), twice)
    torch.testing.assert_close(twice, (once + network(image.flip(-1)).detach().flip(-1)) / 2)
