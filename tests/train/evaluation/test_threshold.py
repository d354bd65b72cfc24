import dataclasses

import numpy as np
import pytest

from tumorseg_runtime.core.errors import InputError
from tumorseg_train.evaluation.predictions import score_part, torch_infer
from tumorseg_train.evaluation.summary import ratios
from tumorseg_train.evaluation.threshold import GRID, choose_threshold
from tumorseg_train.networks.run import Run


@pytest.mark.slow
def test_figures_are_those_of_an_evaluation_at_that_threshold(tiny_run: Run) -> None:
    infer, manifest = torch_infer(tiny_run.model(), tiny_run.contract), tiny_run.manifest()
    choices = choose_threshold(infer, manifest, tiny_run.contract, "test")
    assert sorted(choice.threshold for choice in choices) == list(GRID)
    for choice in choices[:3] + choices[-3:]:
        contract = dataclasses.replace(tiny_run.contract, threshold=choice.threshold)
        figures = ratios(score_part(infer, manifest, "test", contract).scores)
        # a probability may be rounded to the other side of a threshold that its logit is compared with
        assert choice.mean_dice == pytest.approx(figures["mean_dice"].value(), abs=1e-3)
        assert choice.pooled_f1 == pytest.approx(figures["pooled_f1"].value(), abs=1e-3)


def test_the_best_comes_first(tiny_run: Run) -> None:
    choices = choose_threshold(
        torch_infer(tiny_run.model(), tiny_run.contract), tiny_run.manifest(), tiny_run.contract, "test"
    )
    assert choices[0].merit == max(choice.merit for choice in choices) > choices[-1].merit


def test_a_network_without_doubt_keeps_one_half(tiny_run: Run) -> None:
    def sure(image: np.ndarray, name: str) -> np.ndarray:
        return np.where(np.arange(64) < 20, np.float32(9), np.float32(-9))[None, None].repeat(64, axis=1)

    choices = choose_threshold(sure, tiny_run.manifest(), tiny_run.contract, "test")
    assert len({choice.merit for choice in choices}) == 1
    assert choices[0].threshold == 0.5


def test_nothing_to_choose_by(tiny_run: Run) -> None:
    manifest = tiny_run.manifest()
    healthy = tuple(item for item in manifest.items if not item.tumour_px)
    with pytest.raises(InputError, match="no image of 'test' has a tumour"):
        choose_threshold(
            torch_infer(tiny_run.model(), tiny_run.contract),
            dataclasses.replace(manifest, items=healthy),
            tiny_run.contract,
            "test",
        )
