"""The contract: the one description of what goes into the network and what comes out.

Training, export, every backend and the benchmarks read this object; nobody repeats its numbers.
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.expected import MAY_LACK

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
RESIZE_RULES = ("linear-exact",)
SIGMOID, SOFTMAX = "sigmoid", "softmax"
MAX_SIDE = 8192  # pixels: a float32 input of three channels then takes 0.8 GB
MAX_CLASSES = 256
LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.05, 20.0
SIZE_DIVISOR = 32  # five stride-2 stages in the encoder; an exported graph no longer checks it


@dataclasses.dataclass(frozen=True)
class Contract:
    """Input and output of a network.

    height, width: input size in pixels, each divisible by 32 and at most 8192.
    mean, std: per channel, for intensities scaled to 0..1; their length is the number of channels.
    resize: the rule that brings any image to height x width (`tumorseg_runtime.processing.preprocess`).
    classes: one name per output channel and mask, in order.
    threshold: probability from which on a pixel belongs to the class, in 0..1, both excluded; None under the
        rule softmax, which has none.
    rule: how logits become masks (`tumorseg_runtime.processing.decision`): 'sigmoid', each class for itself,
        or 'softmax', one class per pixel or the background, which is not among the classes and whose logit
        is 0. Files from before there were two rules lack it.
    temperature: what logits are divided by where probabilities are reported
        (`tumorseg_runtime.processing.decision`). Masks do not depend on it: `threshold`, and the logit that
        it stands for, are those of the network itself, at temperature 1. Files from before lack it.
    """

    height: int = 512
    width: int = 512
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    resize: str = "linear-exact"
    classes: tuple[str, ...] = ("tumour",)
    threshold: float | None = 0.5
    rule: str = dataclasses.field(default=SIGMOID, metadata=MAY_LACK)
    temperature: float = dataclasses.field(default=1.0, metadata=MAY_LACK)

    def __post_init__(self) -> None:
        for name, pixels in (("height", self.height), ("width", self.width)):
            if not isinstance(pixels, int):
                raise InputError(f"input {name} is {pixels!r}, expected an integer number of pixels")
            if pixels < SIZE_DIVISOR or pixels % SIZE_DIVISOR:
                below = max(SIZE_DIVISOR, pixels // SIZE_DIVISOR * SIZE_DIVISOR)
                raise InputError(
                    f"input {name} is {pixels}, expected a positive multiple of {SIZE_DIVISOR}: "
                    f"use {below} or {below + SIZE_DIVISOR}"
                )
            if pixels > MAX_SIDE:
                raise InputError(f"input {name} is {pixels}, expected at most {MAX_SIDE}: use a smaller one")
        if len(self.mean) not in (1, 3) or len(self.mean) != len(self.std):
            raise InputError(
                f"got {len(self.mean)} means and {len(self.std)} standard deviations, "
                "expected 1 or 3 of each: give one pair per input channel"
            )
        if not all(map(math.isfinite, self.mean)) or not all(s > 0 and math.isfinite(s) for s in self.std):
            raise InputError(
                f"mean {self.mean} and std {self.std} must be finite and std positive: correct the contract"
            )
        if self.resize not in RESIZE_RULES:
            raise InputError(f"resize rule is '{self.resize}', expected one of {', '.join(RESIZE_RULES)}")
        if not 0 < len(set(self.classes)) == len(self.classes) <= MAX_CLASSES:
            raise InputError(
                f"got {len(self.classes)} classes ({', '.join(self.classes[:5])}), expected one or more "
                f"different names, at most {MAX_CLASSES}"
            )
        if unfit := [name for name in self.classes if not re.fullmatch(r"\w[\w .-]{0,99}", name)]:
            raise InputError(
                f"class name '{unfit[0][:100]}' cannot be part of a file name, expected at most 100 letters, "
                "digits, blanks, dots, - and _: rename it"
            )
        if not LEAST_TEMPERATURE <= self.temperature <= MOST_TEMPERATURE:
            raise InputError(
                f"temperature is {self.temperature}, expected {LEAST_TEMPERATURE:g} to {MOST_TEMPERATURE:g}: "
                "fit it again with `tumorseg calibrate`"
            )
        self._check_rule()

    def _check_rule(self) -> None:
        if self.rule == SIGMOID:
            if self.threshold is None or not 0 < self.threshold < 1:
                raise InputError(f"threshold is {self.threshold}, expected a probability between 0 and 1")
        elif self.rule != SOFTMAX:
            raise InputError(f"rule is '{self.rule}', expected {SIGMOID} or {SOFTMAX}")
        elif self.threshold is not None:
            raise InputError(
                f"threshold is {self.threshold}, expected none: under the rule {SOFTMAX} the largest "
                "probability decides"
            )
        elif len(self.classes) < 2:
            raise InputError(
                f"rule {SOFTMAX} has the one class {self.classes[0]} beside the background, expected two or "
                f"more: one class is {SIGMOID} at 0.5"
            )

    @property
    def channels(self) -> int:
        """Number of input channels, 1 or 3."""
        return len(self.mean)

    @property
    def logit_threshold(self) -> float:
        """The threshold on the scale of logits: log(p / (1 - p)), so that no sigmoid is needed; 0, the
        background's logit, under the rule softmax."""
        return 0.0 if self.threshold is None else math.log(self.threshold / (1 - self.threshold))

    @property
    def reported_threshold(self) -> float | None:
        """The threshold on the scale of the probabilities that are reported: there a mask's border lies."""
        if self.threshold is None or self.temperature == 1:
            return self.threshold
        return 1 / (1 + math.exp(-self.logit_threshold / self.temperature))

    @property
    def decision(self) -> str:
        """The rule in words."""
        scale = "" if self.temperature == 1 else f"; reported at temperature {self.temperature:.4g}"
        if self.threshold is None:
            return (
                f"{SOFTMAX}: a pixel belongs to the class of the largest logit where it is above 0, the "
                f"background's, else to none{scale}"
            )
        if scale:
            scale += f" as probability {self.reported_threshold:.3g}"
        return (
            f"{SIGMOID}: a pixel belongs to a class from probability {self.threshold:g} on, a logit of "
            f"{self.logit_threshold:g}{scale}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, in the order of the fields; without a temperature of 1, which older runtimes
        do not know and which changes nothing."""
        values = dataclasses.asdict(self)
        if self.temperature == 1:
            del values["temperature"]
        return values
