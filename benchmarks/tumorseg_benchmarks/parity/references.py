"""What PyTorch says about a set of images: from the bundle's golden files, or by the run's network now."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tumorseg_benchmarks.variants.inputs import EncodedImage, golden_inputs, item_inputs, split_inputs
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.progress import Tell, silent, told
from tumorseg_runtime.core.session import Session, checked_infer
from tumorseg_runtime.parity.budget import BUDGETS, Budget
from tumorseg_runtime.parity.compare import logit_scale
from tumorseg_runtime.parity.mask_diff import border
from tumorseg_runtime.parity.reference import Reference, load_golden
from tumorseg_runtime.parity.yardstick import Yardstick, measure_yardstick
from tumorseg_runtime.processing.decision import decide, distances

if TYPE_CHECKING:
    from tumorseg_train.data.split import Item
    from tumorseg_train.networks.run import Run

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class ReferenceSet:
    """What PyTorch says about a set of images.

    name: 'golden', or the part of the split. logits: float32 (K, H, W) per image.
    tensor: float32 (C, H, W) of an image by its index, as PyTorch was given it; None where that is unknown.
    truth: bool (H, W) of an image by its index, at the network's size; None where that is unknown.
    groups: name of each image's group (one patient or scene), its own name where it is in none.
    scale: standard deviation of PyTorch's logits, the unit of errors; None for that of these logits.
    budgets: by precision, where they are not those of `BUDGETS`.
    unverified: by precision, why masks here are no verdict on an artefact that keeps its budget.
    yardstick: what a grey level of noise does to PyTorch's masks on these images, where it was measured.
    """

    name: str
    images: tuple[EncodedImage, ...]
    logits: tuple[FloatArray, ...]
    tensor: Callable[[int], FloatArray] | None
    truth: Callable[[int], BoolArray] | None = None
    groups: tuple[str, ...] = ()
    scale: float | None = None
    budgets: Mapping[str, Budget] | None = None
    unverified: Mapping[str, str] | None = None
    yardstick: Yardstick | None = None

    def items(self, indices: Iterable[int] | None = None) -> list[Reference]:
        """The images as `replay` takes them; indices: only these, in this order."""
        chosen = range(len(self.images)) if indices is None else indices
        return [
            Reference(
                self.images[index].name,
                self.images[index].pixels(),
                self.tensor(index) if self.tensor else None,
                self.logits[index],
            )
            for index in chosen
        ]

    def with_yardstick(self, session: Session, contract: Contract, tell: Tell = silent) -> ReferenceSet:
        """The same with its yardstick, measured with PyTorch's session."""

        def infer(batch: FloatArray) -> FloatArray:
            return checked_infer(session, batch, contract)

        return dataclasses.replace(self, yardstick=measure_yardstick(infer, self.items(), contract, tell))

    def budget(self, precision: str) -> Budget:
        """What a variant of this precision is allowed on these images."""
        return (self.budgets or BUDGETS)[precision]

    @property
    def unit(self) -> float:
        """Standard deviation of PyTorch's logits; raises InputError where it is 0 or not finite."""
        return logit_scale(self.logits) if self.scale is None else self.scale


@dataclasses.dataclass(frozen=True)
class Margin:
    """How near an image comes to being decided otherwise.

    logits: the logit error from which on an artefact could flip more pixels than the budget leaves free.
    """

    image: str
    logits: float


def golden_reference(bundle: Bundle) -> ReferenceSet:
    """The golden images with what PyTorch made of them at export."""
    golden = load_golden(bundle)
    return ReferenceSet(
        "golden",
        tuple(golden_inputs(bundle)),
        tuple(item.logits for item in golden),
        [item.tensor for item in golden].__getitem__,
    )


def split_reference(
    run: Run, session: Session, part: str, limit: int, first: Sequence[Item] = (), tell: Tell = silent
) -> ReferenceSet:
    """At most `limit` (0: all) images of a part of the split, with what PyTorch makes of them now.

    session: the run's network; it sees the tensors of training's own dataset.
    first: items that come before the others, whether the limit would take them or not.
    """
    from tumorseg_train.data.loader import SplitDataset, spread

    manifest = run.manifest()
    ahead = {item.image for item in first}
    chosen = [item for item in spread(manifest.part(part), limit) if item.image not in ahead]
    items = (*first, *chosen)
    images = item_inputs(run, manifest, items) if items else split_inputs(run, part, limit)
    dataset = SplitDataset(dataclasses.replace(manifest, items=items), part, run.contract)

    def tensor(index: int) -> FloatArray:
        return np.asarray(dataset[index][0].numpy(), np.float32)

    def truth(index: int) -> BoolArray:
        return np.asarray(dataset[index][1].numpy().any(axis=0))

    indices = told(range(len(images)), tell)
    logits = tuple(checked_infer(session, tensor(index)[None], run.contract)[0] for index in indices)
    groups = tuple(item.group or item.image for item in items)
    return ReferenceSet(part, tuple(images), logits, tensor, truth, groups)


def find_thinnest(
    run: Run, session: Session, part: str, count: int, budget: Budget
) -> tuple[tuple[Item, ...], tuple[Margin, ...]]:
    """The `count` images of a part of the split with the thinnest margins, and those margins, thinnest first.

    All images of the part are run through PyTorch.
    """
    from tumorseg_train.data.loader import SplitDataset

    manifest = run.manifest()
    dataset = SplitDataset(manifest, part, run.contract)
    found = []
    for index, item in enumerate(dataset.items):
        tensor = np.asarray(dataset[index][0].numpy(), np.float32)
        (logits,) = checked_infer(session, tensor[None], run.contract)
        found.append((margin_of(logits, run.contract, budget), index, item))
    found.sort(key=lambda one: one[:2])
    thin = found[:count]
    return tuple(item for *_, item in thin), tuple(Margin(item.image, margin) for margin, _, item in thin)


def margin_of(logits: FloatArray, contract: Contract, budget: Budget) -> float:
    """Distance to another decision of the pixel that breaks the budget, if all nearer ones flip before it."""
    borders = sum(np.count_nonzero(border(mask)) for mask in decide(logits, contract))
    free = int(max((budget.flips_per_border or 0.0) * borders, budget.free_pixels))
    distance = np.abs(distances(logits.astype(np.float64), contract)).ravel()
    if free >= distance.size:
        return float("inf")
    return float(np.partition(distance, free)[free])
