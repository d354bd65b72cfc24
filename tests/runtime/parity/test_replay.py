"""The one loop sees what a user would see: bugs behind the network, between calls, and in what is told."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fakes.session import FakeSession
from tumorseg_runtime import Bundle, Prediction, Segmenter
from tumorseg_runtime.backends import open_session
from tumorseg_runtime.conformance.network import conformance_bundle, expected_logits
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.session import InProcess
from tumorseg_runtime.images.frame import Frame, Spacing
from tumorseg_runtime.images.read import write_png
from tumorseg_runtime.inference.segmenter import door_of
from tumorseg_runtime.parity.budget import BUDGETS
from tumorseg_runtime.parity.check_prediction import Checker
from tumorseg_runtime.parity.compare import ParityReport
from tumorseg_runtime.parity.conformance import BUDGETS as CONFORMANCE
from tumorseg_runtime.parity.conformance import RuleSession
from tumorseg_runtime.parity.reference import Golden, load_golden
from tumorseg_runtime.parity.replay import ALL, IN_ONE_LIST, ONE_BY_ONE, Plan, full_plan, quick_plan, replay
from tumorseg_runtime.parity.rules import tensor_rule
from tumorseg_runtime.processing.postprocess import Lesion, find_lesions, probabilities
from tumorseg_runtime.processing.postprocess import masks_from_logits as decide

pytest.importorskip("onnxruntime")
SEGMENTER = "tumorseg_runtime.inference.segmenter"
PREDICTION = "tumorseg_runtime.inference.prediction"
right_line = Prediction.to_dict
ALL_WRITTEN = 3
EVERYTHING = Plan(ALL, (1, 2, 3, 5, ALL), ALL, threads=3, written=2)
Array = npt.NDArray[Any]


def replayed(root: Path, plan: Plan = EVERYTHING) -> ParityReport:
    bundle = Bundle.open(root)
    door = door_of(bundle, open_session(bundle))
    return replay(door, load_golden(bundle), BUDGETS["fp32"], plan, artefact="model.onnx")


def test_a_right_network_passes_in_every_call(small_bundle: Path) -> None:
    report = replayed(small_bundle)
    assert report.passed, report.breaches
    assert [image.tensor_differs for image in report.images] == [0] * len(report.images)
    assert 0 < report.worst.max_error < 1e-4  # another order of sums than numpy's
    calls = {image.call for image in report.images}
    assert {
        "one file",
        "a stream of 3 in batches of 4",
        "a stream of 3 in batches of 1",
        "a list of 3 in thread 2 of 2",
        "a list of 2 in batches of 2",
    } <= calls
    assert len(report.images) == 3 + (1 + 2 + 3 + 3 + 3) + 3 + 3 + 6


def test_the_plans_cost_what_they_promise(small_bundle: Path) -> None:
    assert len(replayed(small_bundle, quick_plan(4)).images) == 4
    assert len(replayed(small_bundle, full_plan(4)).images) <= 13


def test_another_network_fails(small_bundle: Path) -> None:
    bundle = Bundle.open(small_bundle)
    door = Segmenter(bundle.contract, FakeSession(), 2)
    assert not replay(door, load_golden(bundle), BUDGETS["fp32"], ONE_BY_ONE, artefact="fake").passed


def sigmoid_twice(logits: Array, contract: Any, height: int, width: int) -> Array:
    once = 1 / (1 + np.exp(-logits))
    return np.asarray(decide(1 / (1 + np.exp(-once)) - 0.5, contract, height, width))


def upside_down(logits: Array, contract: Any, height: int, width: int) -> Array:
    return decide(logits, contract, height, width)[:, ::-1]


def changed(change: Callable[[Lesion], Lesion]) -> Callable[[Array, str], tuple[Lesion, ...]]:
    return lambda mask, label: tuple(change(lesion) for lesion in find_lesions(mask, label))


def turned(lesion: Lesion) -> Lesion:
    return dataclasses.replace(lesion, box=(lesion.box[1], lesion.box[0], *lesion.box[2:]))


def changed_file(change: Callable[[Array], Array], kind: str) -> Callable[..., None]:
    def write(path: Path, pixels: Array, **options: Any) -> None:
        write_png(path, np.ascontiguousarray(change(pixels)) if kind in path.parts else pixels, **options)

    return write


BUGS: dict[str, tuple[str, Any]] = {
    "sigmoid twice": (f"{SEGMENTER}.masks_from_logits", sigmoid_twice),
    "upside down": (f"{SEGMENTER}.masks_from_logits", upside_down),
    "mask at the network's size": (
        f"{SEGMENTER}.masks_from_logits",
        lambda logits, contract, height, width: decide(logits, contract, *logits.shape[1:]),
    ),
    "box turned": (f"{SEGMENTER}.find_lesions", changed(turned)),
    "centroid turned": (
        f"{SEGMENTER}.find_lesions",
        changed(lambda one: dataclasses.replace(one, centroid=one.centroid[::-1])),
    ),
    "area one too large": (
        f"{SEGMENTER}.find_lesions",
        changed(lambda one: dataclasses.replace(one, area_px=one.area_px + 1)),
    ),
    "contour off by one": (
        f"{SEGMENTER}.find_lesions",
        changed(lambda one: dataclasses.replace(one, contour=tuple((x + 1, y) for x, y in one.contour))),
    ),
    "only the first lesion": (f"{SEGMENTER}.find_lesions", lambda mask, label: find_lesions(mask, label)[:1]),
    "no lesion": (f"{SEGMENTER}.find_lesions", lambda mask, label: ()),
    "probabilities of probabilities": (
        "tumorseg_runtime.inference.prediction.probabilities",
        lambda logits, contract, *size: np.full((len(logits), *size), 0.6, np.float32),
    ),
    "mask of the first class for all": (
        f"{PREDICTION}.Prediction.mask",
        property(lambda self: np.zeros_like(self.masks[0])),
    ),
    "margin of everything": ("tumorseg_runtime.inference.prediction.close_share", lambda *_: 1.0),
}


@pytest.mark.parametrize("bug", BUGS)
def test_bugs_behind_the_network_are_seen(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch, bug: str
) -> None:
    target, other = BUGS[bug]
    monkeypatch.setattr(target, other)
    assert not replayed(small_bundle, dataclasses.replace(ONE_BY_ONE, written=ALL_WRITTEN)).passed


def test_a_probability_that_is_no_number_is_seen(small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_nan(*of: Any) -> Array:
        found = probabilities(*of)
        found[0, 0, 0] = np.nan
        return found

    monkeypatch.setattr(f"{PREDICTION}.probabilities", with_nan)
    assert any("probabilities err by nan" in line for line in replayed(small_bundle, ONE_BY_ONE).breaches)


FILES: dict[str, tuple[str, Any]] = {
    "mask files inverted": (f"{PREDICTION}.write_png", changed_file(lambda pixels: 255 - pixels, "masks")),
    "mask files of 1": (f"{PREDICTION}.write_png", changed_file(lambda pixels: pixels // 255, "masks")),
    "probability files mirrored": (
        f"{PREDICTION}.write_png",
        changed_file(lambda pixels: pixels[:, ::-1], "probabilities"),
    ),
    "overlay of another image": (
        f"{PREDICTION}.draw_overlay",
        lambda image, masks: np.full_like(np.repeat(image[:, :, None], 3, axis=2), 7),
    ),
    "height and width exchanged in the JSON": (
        f"{PREDICTION}.Prediction.to_dict",
        lambda self: {**right_line(self), "height": -1},
    ),
}


@pytest.mark.parametrize("bug", FILES)
def test_bugs_of_what_predict_writes_are_seen(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch, bug: str
) -> None:
    target, other = FILES[bug]
    monkeypatch.setattr(target, other)
    assert not replayed(small_bundle, quick_plan(4)).passed


class Faulty(InProcess):
    """A session of the right network whose batches come out wrong."""

    def __init__(self, session: Any, change: Callable[[Array], Array]) -> None:
        self._session, self._change = session, change
        self.input, self.info = session.input, session.info

    def infer(self, batch: Array) -> Array:
        return np.ascontiguousarray(self._change(self._session.infer(batch)))


def only_at(size: int) -> Callable[[Array], Array]:
    return lambda logits: logits + 1 if len(logits) == size else logits


@pytest.mark.parametrize(
    "change",
    [lambda logits: logits[::-1], lambda logits: logits[:-1], *(only_at(size) for size in (1, 2, 3))],
    ids=["reversed", "one lost", "only at 1", "only at 2", "only at 3"],
)
def test_batches_that_come_out_wrong_are_seen(small_bundle: Path, change: Callable[[Array], Array]) -> None:
    bundle = Bundle.open(small_bundle)
    door = door_of(bundle, Faulty(open_session(bundle), change))
    report = replay(door, load_golden(bundle), BUDGETS["fp32"], EVERYTHING, artefact="faulty")
    assert not report.passed


def test_a_stream_that_drops_or_swaps_is_seen(small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Segmenter.stream

    def swapped(self: Segmenter, images: Any, **options: Any) -> Any:
        results = list(real(self, images, **options))
        predictions = [result.prediction for result in results][::-1]
        return (dataclasses.replace(a, prediction=b) for a, b in zip(results, predictions, strict=True))

    monkeypatch.setattr(Segmenter, "stream", swapped)
    report = replayed(small_bundle, Plan(streamed=ALL))
    assert any("the prediction is named" in line for line in report.breaches)
    monkeypatch.setattr(Segmenter, "stream", lambda self, images, **_: list(real(self, images))[:-1])
    report = replayed(small_bundle, Plan(streamed=ALL))
    assert any("gave 2 predictions for 3 images" in line for line in report.breaches)


def test_images_of_one_size_are_neighbours_in_streams_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them can be mistaken for the other, wherever they stand among the references."""
    bundle, rng, references = conformance_bundle("rgb"), np.random.default_rng(0), []
    for number, size in enumerate([(40, 52), (31, 60), (40, 52), (52, 40)]):
        pixels = rng.integers(0, 256, (*size, 3), np.uint8)
        tensor = tensor_rule(pixels, bundle.contract)
        logits = expected_logits("rgb", tensor).astype(np.float32)
        references.append(Golden(f"{number}.png", pixels, tensor, logits))
    door = door_of(bundle, RuleSession("rgb"))
    plan = Plan(streamed=ALL, few_streamed=(2,))
    assert replay(door, references, CONFORMANCE["fp32"], plan, artefact="rule").passed
    real = Segmenter.stream

    def of_neighbour(self: Segmenter, images: Any, *, batch_size: int = 1, **options: Any) -> Any:
        before: Any = None
        for result in real(self, images, batch_size=batch_size, **options):
            now: Any = result.prediction
            alike = batch_size == 2 and before is not None and before.masks.shape == now.masks.shape
            shown = dataclasses.replace(now, masks=before.masks) if alike else now
            yield dataclasses.replace(result, prediction=shown)
            before = now

    monkeypatch.setattr(Segmenter, "stream", of_neighbour)
    breaches = replay(door, references, CONFORMANCE["fp32"], plan, artefact="rule").breaches
    assert any("in batches of 2" in line for line in breaches), breaches


def test_two_threads_that_share_a_result_are_seen(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, first = Segmenter.predict, list[Any]()

    def shared(self: Segmenter, images: Sequence[Any], **options: Any) -> Any:
        first.append(real(self, images, **options))
        return first[0]

    monkeypatch.setattr(Segmenter, "predict", shared)
    assert not replayed(small_bundle, Plan(threads=3)).passed


def test_millimetres_that_are_another_images_are_seen_though_all_else_is_the_same(small_bundle: Path) -> None:
    bundle = Bundle.open(small_bundle)
    door, item = door_of(bundle, open_session(bundle)), load_golden(bundle)[0]
    checker, spacing = Checker(door, BUDGETS["fp32"], 1.0), (Spacing(0.5, 0.7, "a test"),)
    found = door.predict(Frame(item.name, item.pixels, spacing))
    assert found.lesions
    assert not checker.check(item, (item.name, spacing), found, "first").breaches
    without = dataclasses.replace(found, frame=Frame(item.name, item.pixels, ()))
    assert any("expected none" in line for line in checker.check(item, (item.name, ()), without, "").breaches)


def test_a_gray_form_needs_a_gray_image(
    make_bundle: Callable[..., Path], convert_bundle: Callable[[Path, str], None], tmp_path: Path
) -> None:
    root = make_bundle(tmp_path / "bundle")
    convert_bundle(root, "onnx-deploy-gray")
    bundle = Bundle.open(root)
    door = door_of(bundle, open_session(bundle, backend="onnxruntime-deploy-gray"))
    golden = load_golden(bundle)
    report = replay(door, golden, BUDGETS["fp32"], IN_ONE_LIST, artefact="gray")
    assert report.passed, report.breaches
    assert len(report.images) == 2
    with pytest.raises(InputError, match="none of the 1 references is gray"):
        replay(door, golden[2:], BUDGETS["fp32"], IN_ONE_LIST, artefact="gray")


def test_a_prediction_keeps_what_is_checked() -> None:
    """A field that a user can read and that nobody checks would be a gap: add it to `check_prediction`."""
    assert {field.name for field in dataclasses.fields(Prediction)} == {
        "frame", "masks", "lesions", "own_logits", "contract", "band", "close", "guard",
    }  # fmt: skip
    assert {field.name for field in dataclasses.fields(Lesion)} == {
        "label", "area_px", "box", "centroid", "contour", "area_mm2", "box_mm", "diameter_mm",
    }  # fmt: skip
