"""The one loop that decides whether an artefact or a device is right: references through the public door.

`replay` enters as a user does - `predict` of a file, of lists that make batches of every size, `stream`,
two threads at once - and holds all that comes out against PyTorch's logits and against the runtime's rules
written out plainly (`tumorseg_runtime.parity.rules`): pixels, spacing, tensor, logits, masks at the image's
own size, lesions, probabilities, margin. Export, the self-test, `verify`, `install`, `build`, `parity`,
`bench`, the searches for precision and the mutants call it; they differ in references and plan alone.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy.typing as npt

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import CheckFailedError, InputError, TumorsegError
from tumorseg_runtime.core.progress import Tell, silent, told
from tumorseg_runtime.core.session import SessionInfo
from tumorseg_runtime.images.frame import Frame, Spacing
from tumorseg_runtime.parity.budget import Budget
from tumorseg_runtime.parity.check_prediction import Checker, Predicted
from tumorseg_runtime.parity.compare import ImageParity, ParityReport, logit_scale
from tumorseg_runtime.parity.reference import Reference
from tumorseg_runtime.processing.input_guard import InputGuard

ALL = 10**9  # as many references as there are
FEW_STREAMED = 8
TIME_LIMIT = 600.0  # seconds, more than any inference takes: what has a limit runs on another thread


class Door(Protocol):
    """The verbs of the public door, `tumorseg_runtime.Segmenter`."""

    contract: Contract
    batch_size: int
    channels: int
    gives_masks: bool
    resizes_masks: bool
    guard: InputGuard | None

    @property
    def info(self) -> SessionInfo:
        """Backend, device, precision and versions."""

    def predict(self, images: Any, *, timeout_s: float | None = None) -> Any:
        """A prediction of one image, or a list of a list's."""

    def stream(
        self, images: Iterable[Any], *, batch_size: int, timeout_s: float | None = None
    ) -> Iterator[Any]:
        """Results of a stream of images, in order."""

    def prepare(self, frame: Frame) -> npt.NDArray[Any]:
        """The network's input, made of one frame."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How references go through the door; every number is cut to what there is.

    single: references that go one by one, as files where they are in one. written: of these so many, taken
    evenly, are written as `predict` writes them, and read again.
    lists: sizes of lists of arrays, each of the next references in turn; a list longer than the door's batch
    size has a ragged rest, and in one of all references arrays and files alternate.
    streamed: references that go through `stream` in batches, and a few one by one with a time limit.
    few_streamed: further sizes of batches in which these few are streamed, most of them of one size.
    threads: references that each of two threads is given.
    """

    single: int = 0
    lists: tuple[int, ...] = ()
    streamed: int = 0
    few_streamed: tuple[int, ...] = ()
    threads: int = 0
    written: int = 0


ONE_BY_ONE = Plan(single=ALL)
IN_ONE_LIST = Plan(lists=(ALL,))


def quick_plan(batch_size: int) -> Plan:
    """One file, and all references as a list: what a device can afford at every start."""
    return Plan(single=1, written=1, lists=(ALL,))


def full_plan(batch_size: int) -> Plan:
    """Every batch size up to four and the largest, a stream, and all references as a list."""
    sizes = tuple(size for size in (2, 3) if size < batch_size)
    return Plan(single=1, written=1, lists=(*sizes, ALL), streamed=2)


def replay(
    door: Door,
    references: Sequence[Reference],
    budget: Budget,
    plan: Plan,
    *,
    artefact: str,
    scale: float | None = None,
    each: Callable[[int, Predicted], None] = lambda index, prediction: None,
    tell: Tell = silent,
) -> ParityReport:
    """Push the references through the door as planned, and compare everything that comes out.

    artefact: name in the report. scale: standard deviation of PyTorch's logits, the unit of errors; None for
        that of the references.
    each: is given the index of a reference and a prediction of it, whatever came of the comparison.
    tell: the share of the calls that is done.
    Raises InputError where no reference fits the door (a form for gray needs a gray image), and what the door
    raises for its backend; what it raises for a check is a breach of the images of that call.
    """
    fitting = [(index, item) for index, item in enumerate(references) if _fits(item, door)]
    if not fitting:
        raise InputError(
            f"{artefact}: takes gray images and none of the {len(references)} references is gray, expected "
            "one to compare: export with --golden, or leave the artefact out"
        )
    unit = logit_scale([item.logits for _, item in fitting]) if scale is None else scale
    checker = Checker(door, budget, unit)
    images: list[ImageParity] = []
    for call in told(list(_calls(door, [item for _, item in fitting], plan)), tell):
        for place, outcome in call.outcomes():
            index, item = fitting[place]
            if isinstance(outcome, TumorsegError):
                images.append(checker.failed(item, call.label, outcome))
                continue
            expected = call.expected(place)
            images.append(checker.check(item, expected, outcome, call.label, written=call.written))
            each(index, outcome)
    info = door.info
    return ParityReport(
        artefact, info.backend, info.device, info.precision, info.versions, budget, unit, tuple(images)
    )


def _fits(item: Reference, door: Door) -> bool:
    """Whether the door takes the image: a form of one plane takes gray, whatever the contract has."""
    return item.pixels.ndim == 2 or door.channels == 3


@dataclasses.dataclass(frozen=True)
class _Call:
    """One use of the door. places: of the references, in the order given. run: their predictions.

    names, spacings: what each prediction must be called, and what it must say about distances.
    """

    label: str
    places: tuple[int, ...]
    run: Callable[[], Sequence[Any]]
    names: tuple[str, ...]
    spacings: tuple[tuple[Spacing, ...], ...]
    written: bool = False

    def outcomes(self) -> Iterator[tuple[int, Any]]:
        """Each reference's place with its prediction, or with the error that the door raised instead."""
        try:
            found = self.run()
        except CheckFailedError as error:
            found = [error] * len(self.places)
        if len(found) != len(self.places):
            lost = CheckFailedError(
                f"the door gave {len(found)} predictions for {len(self.places)} images, expected as many"
            )
            found = [lost] * len(self.places)
        yield from zip(self.places, found, strict=True)

    def expected(self, place: int) -> tuple[str, tuple[Spacing, ...]]:
        """Name and spacings of the prediction of a reference."""
        at = self.places.index(place)
        return self.names[at], self.spacings[at]


def _calls(door: Door, items: Sequence[Reference], plan: Plan) -> Iterator[_Call]:
    """The uses of the door that a plan asks for."""
    count, turn = len(items), 0
    alone = [place for place, item in enumerate(items) if item.frames == 1]
    alone = alone[: plan.single]
    chosen = {alone[number * len(alone) // plan.written] for number in range(plan.written) if alone}
    for place in alone:
        yield dataclasses.replace(_single(door, items[place], place), written=place in chosen)
    for size in plan.lists:
        places = tuple((turn + step) % count for step in range(min(size, count)))
        turn += len(places)
        yield _list(door, items, places, files=len(places) == count)
    if plan.streamed:
        places = tuple(range(min(plan.streamed, count)))
        yield _streamed(door, items, places, door.batch_size, None)
        few = _most_alike(items, places)[:FEW_STREAMED]
        if few and door.batch_size > 1:
            yield _streamed(door, items, few, 1, TIME_LIMIT)
        for size in plan.few_streamed:
            if few and size < door.batch_size:
                yield _streamed(door, items, few, size, None)
    if plan.threads:
        yield from _threaded(door, items, min(plan.threads, count))


def _most_alike(items: Sequence[Reference], places: Sequence[int]) -> tuple[int, ...]:
    """Places of files of one frame, those of the most frequent size first: images of one size can be mistaken
    for one another."""
    shapes = {place: items[place].pixels.shape[:2] for place in places if items[place].frames == 1}
    often = Counter(shapes.values())
    return tuple(sorted(shapes, key=lambda place: -often[shapes[place]]))


def _single(door: Door, item: Reference, place: int) -> _Call:
    if item.path is None:
        return _Call("one array", (place,), lambda: [door.predict(item.pixels)], ("image 0",), ((),))
    path = item.path
    return _Call("one file", (place,), lambda: [door.predict(path)], (str(path),), (item.spacings,))


def _list(door: Door, items: Sequence[Reference], places: tuple[int, ...], *, files: bool) -> _Call:
    sources: list[Any] = [items[place].pixels for place in places]
    names = [f"image {number}" for number in range(len(places))]
    spacings: list[tuple[Spacing, ...]] = [()] * len(places)
    for number, place in list(enumerate(places))[1::2]:
        if files and (path := items[place].path) is not None and items[place].frames == 1:
            sources[number], names[number], spacings[number] = path, str(path), items[place].spacings
    label = f"a list of {len(places)} in batches of {min(door.batch_size, len(places))}"
    return _Call(label, places, lambda: door.predict(sources), tuple(names), tuple(spacings))


def _streamed(
    door: Door, items: Sequence[Reference], places: tuple[int, ...], size: int, timeout_s: float | None
) -> _Call:
    """Files where there are some; the frames of one file follow each other among the references."""
    sources: list[Any] = []
    names = []
    for place in places:
        item = items[place]
        if item.path is None:
            sources.append(Frame(item.name, item.pixels, item.spacings))
            names.append(item.name)
        else:
            if item.frame == 0:
                sources.append(item.path)
            names.append(str(item.path) if item.frames == 1 else f"{item.path}[{item.frame}]")

    def run() -> list[Any]:
        results = list(door.stream(sources, batch_size=size, timeout_s=timeout_s))
        if errors := [result.error for result in results if result.error is not None]:
            raise CheckFailedError(f"the stream gave an error, expected predictions: {errors[0]}")
        if dropped := sum(result.dropped for result in results):
            raise CheckFailedError(f"the stream dropped {dropped} images, expected none")
        return [result.prediction for result in results]

    spacings = tuple(items[place].spacings for place in places)
    return _Call(f"a stream of {len(places)} in batches of {size}", places, run, tuple(names), spacings)


def _threaded(door: Door, items: Sequence[Reference], count: int) -> Iterator[_Call]:
    """Two lists, one the other's reverse, predicted at the same time by two threads."""
    places = tuple(range(count)), tuple(reversed(range(len(items) - count, len(items))))
    answers: dict[int, Sequence[Any]] = {}
    errors: dict[int, BaseException] = {}
    together = threading.Barrier(2)

    def work(number: int) -> None:
        try:
            together.wait()
            answers[number] = door.predict([items[place].pixels for place in places[number]])
        except BaseException as error:  # noqa: BLE001  # raised again where the call is read
            errors[number] = error

    def run(number: int) -> Sequence[Any]:
        if number == 0:
            threads = [threading.Thread(target=work, args=(one,)) for one in (0, 1)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        if number in errors:
            raise errors[number]
        return answers[number]

    for number, order in enumerate(places):
        names = tuple(f"image {at}" for at in range(len(order)))
        label = f"a list of {len(order)} in thread {number + 1} of 2"
        yield _Call(label, order, lambda number=number: run(number), names, ((),) * len(order))  # type: ignore[misc]
