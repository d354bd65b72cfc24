import copy

import pytest
import torch

from tumorseg_runtime.errors import InputError
from tumorseg_train.models import build_model
from tumorseg_train.precision import keep_depthwise_in_float32, resolve_precision
from tumorseg_train.recipe import load_recipe


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


def test_depthwise_convolutions_leave_autocast_and_nothing_else_changes() -> None:
    torch.manual_seed(0)
    model = build_model("unet", "timm-tf_efficientnet_lite0", channels=3, classes=1).eval()
    kept = copy.deepcopy(model)
    keep_depthwise_in_float32(kept)
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
