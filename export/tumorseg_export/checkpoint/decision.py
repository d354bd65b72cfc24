"""How a foreign network's channels become masks: its decision rule, and what becomes of a background channel.

A softmax with a background channel b decides as one whose logits are l_k - l_b, against 0 for the background.
So that channel is subtracted from the others, in the head's weights and biases, and the exported network has
one channel less; of two classes one logit remains, whose sigmoid is the softmax.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tumorseg_runtime.core.contract import SIGMOID, SOFTMAX
from tumorseg_runtime.core.errors import CheckFailedError, InputError

BACKGROUND, TUMOUR = "background", "tumour"
THRESHOLD = 0.5  # where nobody says it
# What smp's `activation` says of the rule; it is left off, since artefacts give logits.
ACTIVATIONS = {
    "sigmoid": SIGMOID, "softmax": SOFTMAX, "softmax2d": SOFTMAX, "logsoftmax": SOFTMAX, "argmax": SOFTMAX,
    "argmax2d": SOFTMAX,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Decision:
    """Classes, rule and threshold of the contract; background: the channel that is none of the classes."""

    classes: tuple[str, ...]
    rule: str
    threshold: float | None
    background: int | None = None


def choose_decision(
    file: Path,
    channels: int,
    names: tuple[str, ...] | None,
    rule: tuple[str | None, str | None],
    threshold: float | None,
    log: Callable[[str], None],
) -> Decision:
    """The decision of a network of so many channels.

    names: of --classes. rule: of --rule, and of the activation in the file's own config.
    Raises InputError where the rule is not known, or does not fit the channels and names.
    """
    given, known = rule
    if given is not None and known is not None and given != known:
        raise InputError(f"--rule is {given}, the file's own activation says {known}: leave the flag out")
    chosen = given or known
    if names is None and channels == 1:
        names = (TUMOUR,)
    if names is None or len(names) != channels:
        got = "none" if names is None else ", ".join(names)
        raise InputError(
            f"{file}: has {channels} classes, got names: {got}; give {channels} by --classes a,b,..., in the "
            f"order of the channels, a background channel as {BACKGROUND}"
        )
    places = [place for place, name in enumerate(names) if name.lower() == BACKGROUND]
    if channels == 1:
        if chosen == SOFTMAX:
            raise InputError(
                f"{file}: has one class, whose softmax is 1 everywhere, expected two or more with the "
                f"background: one class alone is --rule {SIGMOID}"
            )
        chosen = SIGMOID
    if chosen is None:
        raise InputError(
            f"{file}: has {channels} classes, and does not say how they become masks: give --rule {SIGMOID} "
            f"if each has a probability of its own, or --rule {SOFTMAX} if the largest one decides"
        )
    if chosen == SIGMOID:
        if places:
            raise InputError(
                f"{file}: under --rule {SIGMOID} the class {names[places[0]]} would be segmented as lesions: "
                f"give --rule {SOFTMAX} if it excludes the others, or name it otherwise"
            )
        return Decision(names, SIGMOID, _threshold(threshold, log))
    if len(places) != 1:
        raise InputError(
            f"{file}: --rule {SOFTMAX} needs to know the channel of the background, {len(places)} of the "
            f"classes {', '.join(names)} are named so: name one {BACKGROUND} in --classes"
        )
    place = places[0]
    classes = names[:place] + names[place + 1 :]
    if len(classes) == 1:
        log(
            f"{SOFTMAX} over {', '.join(names)}: exported as the sigmoid of one logit, {classes[0]}'s less "
            "the background's, which is the same"
        )
        return Decision(classes, SIGMOID, _threshold(threshold, log), place)
    if threshold is not None:
        raise InputError(
            f"{file}: --threshold is {threshold}, expected none: under --rule {SOFTMAX} with {len(classes)} "
            "classes beside the background the largest probability decides"
        )
    log(
        f"{SOFTMAX} over {', '.join(names)}: a pixel belongs to the class of the largest probability; the "
        f"background's channel, {place}, is subtracted from the others"
    )
    return Decision(classes, SOFTMAX, None, place)


def _threshold(threshold: float | None, log: Callable[[str], None]) -> float:
    if threshold is None:
        log(f"no --threshold: a pixel belongs to a class from probability {THRESHOLD} on")
        return THRESHOLD
    return threshold


class AgainstBackground(torch.nn.Module):
    """A network as it came, its background's logit subtracted from the others' after it has answered: what
    artefacts are compared with. `folded` is what they are made of."""

    def __init__(self, network: torch.nn.Module, background: int) -> None:
        super().__init__()
        self.network, self.background = network, background

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """float32 (N, C, H, W) -> logits (N, K, H, W) against a background of 0."""
        return _less_background(self.network(image), self.background, dim=1)

    @property
    def facts(self) -> dict[str, Any]:
        """What `bundle.json` says of it."""
        return {"softmax": {"channels": _head(self.network).out_channels, "background": self.background}}

    def folded(self) -> torch.nn.Module:
        """A copy of the network whose last convolution gives these logits itself, rounded once.

        What lies behind that convolution resizes, if anything: it may as well stand behind the subtraction.
        """
        network = copy.deepcopy(self.network)
        conv = _head(network)
        for name, values in list(conv.named_parameters(recurse=False)):
            less = _less_background(values.detach().double(), self.background, dim=0).to(values.dtype)
            setattr(conv, name, torch.nn.Parameter(less, requires_grad=False))
        conv.out_channels -= 1
        return network


def _less_background(values: torch.Tensor, background: int, dim: int) -> torch.Tensor:
    others = [place for place in range(values.shape[dim]) if place != background]
    return values.index_select(dim, torch.tensor(others)) - values.narrow(dim, background, 1)


def _head(network: torch.nn.Module) -> torch.nn.Conv2d:
    """The convolution that gives the logits."""
    head = network.get_submodule("segmentation_head")
    convs = [one for one in head.modules() if isinstance(one, torch.nn.Conv2d)]
    if not convs or convs[-1].groups != 1:
        raise CheckFailedError(
            f"the head of {type(network).__name__} ends with no plain convolution, expected one in which the "
            "background's channel can be subtracted"
        )
    return convs[-1]


def to_export(model: torch.nn.Module) -> torch.nn.Module:
    """The network that artefacts are made of."""
    return model.folded() if isinstance(model, AgainstBackground) else model
