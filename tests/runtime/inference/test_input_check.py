"""Input guard and temperature through the public door: what they change, and that it is not the masks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import Result

from tumorseg_runtime import Segmenter
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BundleError, ParityError
from tumorseg_runtime.images.read import write_png
from tumorseg_runtime.processing import decision, input_guard
from tumorseg_runtime.processing.input_guard import FILE, STATISTICS, InputGuard, KindOfImage, statistics

Scene = Callable[..., npt.NDArray[np.uint8]]
TEMPERATURE = 2.5


@pytest.fixture
def guarded(make_bundle: Callable[..., Path], scene: Scene, tmp_path: Path) -> Path:
    """A bundle with a temperature and a guard that takes `scene` for usual."""
    values = np.stack([statistics(scene(64, 64, seed=seed))[0] for seed in range(20)])
    kind = KindOfImage(
        "scenes", 20, tuple(values.mean(axis=0).tolist()), tuple((values.std(axis=0) + 1).tolist()),
        tuple(map(tuple, np.eye(len(STATISTICS)).tolist())), 2.0,
    )  # fmt: skip
    root = tmp_path / "guarded"
    root.mkdir()
    (root / FILE).write_text(InputGuard("0" * 64, 90.0, (kind,)).to_text(), encoding="utf-8")
    return make_bundle(root, Contract(64, 64, temperature=TEMPERATURE))


def test_masks_are_the_same_bit_for_bit_and_probabilities_are_scaled(
    guarded: Path, small_bundle: Path, scene: Scene
) -> None:
    with Segmenter.open(guarded) as watching, Segmenter.open(small_bundle) as plain:
        for image in (scene(90, 70), scene(64, 64, colour=True), np.zeros((50, 40), np.uint8)):
            one, other = watching.predict(image), plain.predict(image)
            np.testing.assert_array_equal(one.masks, other.masks)
            np.testing.assert_array_equal(one.logits, other.logits)
            assert (one.lesions, one.margin) == (other.lesions, other.margin)
            p, q = (found.probabilities().astype(np.float64) for found in (one, other))
            inside = (q > 1e-4) & (q < 1 - 1e-4)
            np.testing.assert_allclose(
                np.log(p / (1 - p))[inside] * TEMPERATURE, np.log(q / (1 - q))[inside], atol=2e-2
            )
            assert other.input_check is None
            assert other.to_dict()["input_check"] is None
            assert one.input_check is not None
            assert one.to_dict()["input_check"] == dataclasses.asdict(one.input_check)
        assert watching.predict(scene(64, 64, seed=30)).to_dict()["input_check"]["flagged"] is False
        assert watching.predict(np.zeros((50, 40), np.uint8)).to_dict()["input_check"]["flagged"] is True


@pytest.mark.slow
def test_the_self_test_holds_guard_and_temperature_against_their_rules(
    guarded: Path, monkeypatch: pytest.MonkeyPatch, few_conformance_files: None
) -> None:
    Segmenter.open(guarded, self_test=True).close()
    right = decision.to_probabilities

    def forgets(logits: npt.NDArray[np.float32], contract: Contract) -> npt.NDArray[np.floating]:
        return right(logits, dataclasses.replace(contract, temperature=1.0))

    with monkeypatch.context() as patch:
        patch.setattr("tumorseg_runtime.processing.postprocess.to_probabilities", forgets)
        with pytest.raises(ParityError, match="probabilities err"):
            Segmenter.open(guarded, self_test=True)
    honest = input_guard.statistics
    monkeypatch.setattr(input_guard, "statistics", lambda pixels: honest(pixels[::-1]))
    with pytest.raises(ParityError, match="input guard gives"):
        Segmenter.open(guarded, self_test=True)


def test_a_guard_that_was_changed_is_refused_as_any_other_part(
    guarded: Path, reseal: Callable[[Path], Bundle]
) -> None:
    text = (guarded / FILE).read_text(encoding="utf-8")
    opened = Bundle.open(guarded)
    (guarded / FILE).write_text(text.replace('"limit": 2.0', '"limit": 9.0'), encoding="utf-8")
    with pytest.raises(BundleError, match=r"guard\.json has the right size but other content"):
        Segmenter.open(guarded)
    with pytest.raises(BundleError, match=r"guard\.json is no longer as it was sealed"):
        Segmenter.open(opened)
    (guarded / FILE).unlink()
    with pytest.raises(BundleError, match=r"guard\.json is missing"):
        Segmenter.open(guarded)
    (guarded / FILE).write_text(text.replace('"limit": 2.0', '"limit": "no"'), encoding="utf-8")
    reseal(guarded)  # whoever seals a damaged one
    with pytest.raises(BundleError, match=r"guard\.json: .*kinds\[0\]\.limit is 'no', expected a number"):
        Segmenter.open(guarded)


def test_predict_warns_and_counts(
    guarded: Path, scene: Scene, tmp_path: Path, run_predict: Callable[..., Result]
) -> None:
    (tmp_path / "in").mkdir()
    write_png(tmp_path / "in/usual.png", scene(64, 64))
    write_png(tmp_path / "in/blank.png", np.full((64, 64), 200, np.uint8))
    result = run_predict(guarded, tmp_path / "in", "--out", tmp_path / "out", "--no-overlays")
    assert result.exit_code == 0, result.output
    (warning,) = (line for line in result.stderr.splitlines() if "warning" in line)
    assert "blank.png: unlike the training images: " in warning
    assert "2 images (1 flagged by the input guard)" in result.stdout.splitlines()[-1]
    values = json.loads((tmp_path / "out/predictions.json").read_text(encoding="utf-8"))
    assert values["temperature"] == TEMPERATURE
    assert values["threshold"] == 0.5
    assert [line["input_check"]["flagged"] for line in values["images"]] == [True, False]
