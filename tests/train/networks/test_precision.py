import copy
from typing import Any

import pytest
import torch

from tumorseg_runtime.core.errors import InputError
from tumorseg_train.config.recipe import load_recipe
from tumorseg_train.networks.models import build_model
from tumorseg_train.networks.precision import resolve_precision, speed_up_depthwise


@pytest.mark.parametrize(
    ("cuda", "bf16", "expected"),
    [(True, True, "16-mixed"), (False, True, "bf16-mixed"), (False, False, "32-true")],
)
def test_auto_is_what_the_machine_does_best(
    cuda: bool, bf16: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert resolve_precision(load_recipe("cpu")).precision == expected
    assert resolve_precision(load_recipe("quick")) == load_recipe("quick")


def test_half_precision_needs_a_cuda_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="precision is 16-mixed, expected auto or 32-true"):
        resolve_precision(load_recipe("full"))


@pytest.mark.slow
def test_depthwise_convolutions_leave_autocast_and_nothing_else_changes() -> None:
    torch.manual_seed(0)
    model = build_model("unet", "timm-tf_efficientnet_lite0", channels=3, classes=1).eval()
    kept = copy.deepcopy(model)
    speed_up_depthwise(kept)
    images = torch.randn(1, 3, 64, 64)
    types: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    twin = copy.deepcopy(kept)  # as the running average of the weights is made
    for module in twin.modules():
        if isinstance(module, torch.nn.Conv2d):
            depthwise = module.groups > 1
            module.register_forward_hook(lambda _, __, out, which=depthwise: types[which].add(out.dtype))
    with torch.inference_mode():
        assert torch.equal(model(images), kept(images))
        with torch.autocast("cpu", torch.bfloat16):
            twin(images)
        assert types == {True: {torch.float32}, False: {torch.bfloat16}}
        first = torch.nn.utils.parameters_to_vector(kept.parameters()).clone()
        for parameter in twin.parameters():
            parameter.zero_()
        assert not twin(images).any()  # a copy computes with its own weights
    assert torch.equal(first, torch.nn.utils.parameters_to_vector(kept.parameters()))
    assert list(model.state_dict()) == list(kept.state_dict())


@pytest.mark.parametrize(
    ("side", "step", "size", "bias"), [(5, 4, (16, 24), False), (3, 2, (8, 6), True), (3, 4, (12, 20), False)]
)
def test_a_dilated_depthwise_convolution_and_its_gradients_stay_what_they_were(
    side: int, step: int, size: tuple[int, int], bias: bool
) -> None:
    torch.manual_seed(0)
    plain = torch.nn.Conv2d(6, 6, side, padding=step * (side // 2), dilation=step, groups=6, bias=bias)
    fast = copy.deepcopy(plain)
    speed_up_depthwise(fast)
    seen: list[torch.Size] = []
    fast_convolution = torch.nn.functional.conv2d

    def conv2d(images: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        seen.append(images.shape)
        return fast_convolution(images, *arguments, **options)

    images = torch.randn(2, 6, *size)
    weights = torch.randn(2, 6, *size)
    results = []
    for module in (plain, fast):
        given = images.clone().requires_grad_()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.nn.functional, "conv2d", conv2d)
            out = module(given)
        (out * weights).sum().backward()
        results.append([out, given.grad, *(parameter.grad for parameter in module.parameters())])
    assert seen[-1] == (2 * step * step, 6, *(max(side, length // step) for length in size))
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1},
        {"padding": 2, "stride": 2},
        {"padding": 2, "padding_mode": "reflect"},
        {"padding": "same"},
    ],
)
def test_a_depthwise_convolution_that_cannot_be_split_runs_as_it_is(options: dict[str, Any]) -> None:
    module = torch.nn.Conv2d(4, 4, 3, dilation=2, groups=4, **options)
    images = torch.randn(1, 4, 8, 8)
    expected = module(images)
    speed_up_depthwise(module)
    assert torch.equal(module(images), expected)
    odd = torch.randn(1, 4, 9, 8)
    assert torch.equal(module(odd), type(module).forward(module, odd))
