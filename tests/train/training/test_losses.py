import numpy as np
import pytest
import torch

from tumorseg_runtime.core.errors import InputError
from tumorseg_train.training.losses import LOSSES, DiceBCELoss, build_loss


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def target() -> torch.Tensor:
    return (torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(2)) > 0.7).float()


def by_formula(logits: torch.Tensor, target: torch.Tensor, weight: float, epsilon: float) -> float:
    z, y = logits.numpy().astype(np.float64), target.numpy().astype(np.float64)
    p = 1 / (1 + np.exp(-z))
    dice = 1 - (2 * (p * y).sum() + epsilon) / (p.sum() + y.sum() + epsilon)
    bce = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
    return float(dice + weight * bce)


@pytest.mark.parametrize(("weight", "epsilon"), [(1.0, 1.0), (0.0, 1.0), (2.5, 0.1)])
def test_is_the_formula_of_its_docstring(
    logits: torch.Tensor, target: torch.Tensor, weight: float, epsilon: float
) -> None:
    assert DiceBCELoss(weight, epsilon)(logits, target).item() == pytest.approx(
        by_formula(logits, target, weight, epsilon), abs=1e-6
    )


def test_a_sigmoid_applied_twice_would_show(target: torch.Tensor) -> None:
    certain = (target * 2 - 1) * 40  # right, and as sure as float32 can be
    assert DiceBCELoss()(certain, target).item() < 1e-5
    assert DiceBCELoss()(torch.sigmoid(certain), target).item() > 0.5


def test_gradient_descent_on_logits_reaches_zero(target: torch.Tensor) -> None:
    z = torch.zeros_like(target, requires_grad=True)
    optimizer = torch.optim.Adam([z], lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        DiceBCELoss()(z, target).backward()
        optimizer.step()
    assert DiceBCELoss()(z, target).item() < 1e-3
    assert torch.equal(z > 0, target > 0)


def test_both_halves_of_the_cross_entropy_count(target: torch.Tensor) -> None:
    everything = torch.full_like(target, 40.0)
    assert DiceBCELoss()(everything, target).item() > 10  # the positive half alone would be satisfied


def test_an_image_without_a_tumour_has_no_dice_term(logits: torch.Tensor) -> None:
    empty = torch.zeros_like(logits)
    bce = torch.nn.functional.binary_cross_entropy_with_logits(logits, empty)
    assert DiceBCELoss()(logits, empty).item() == pytest.approx(bce.item())


@pytest.mark.parametrize("arguments", [{"bce_weight": -1}, {"epsilon": 0}])
def test_impossible_weights_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected >= 0 and > 0"):
        DiceBCELoss(**arguments)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_takes_logits_and_is_least_for_the_truth(name: str, target: torch.Tensor) -> None:
    """Gradient descent on logits ends at the mask, for two classes that are masks of their own."""
    y = torch.cat([target, 1 - target], dim=1)
    z = torch.zeros_like(y, requires_grad=True)
    loss = build_loss(name, 1.0, 1.0)
    before = loss(z, y).item()
    optimizer = torch.optim.Adam([z], lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        loss(z, y).backward()
        optimizer.step()
    assert loss(z, y).item() < 0.5 * before
    assert torch.equal(z > 0, y > 0)


def test_lambda_and_epsilon_reach_the_loss(logits: torch.Tensor, target: torch.Tensor) -> None:
    expected = DiceBCELoss(0.3, 20.0)(logits, target)
    assert torch.equal(build_loss("dice+bce", 0.3, 20.0)(logits, target), expected)
    assert build_loss("dice", 1.0, 20.0)(logits, target) != build_loss("dice", 1.0, 1.0)(logits, target)


def test_an_unknown_loss_says_what_there_is() -> None:
    with pytest.raises(InputError, match=r"loss is 'wing', expected one of dice\+bce, bce, dice"):
        build_loss("wing", 1.0, 1.0)
