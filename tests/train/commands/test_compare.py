"""The whole command, on copies of a tiny run: other weights, and the same on a random split."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import save_file

from tumorseg_runtime.bundle.bundle import sha256_of
from tumorseg_runtime.core.errors import InputError
from tumorseg_train.commands.compare import compare
from tumorseg_train.commands.evaluate import evaluate
from tumorseg_train.evaluation.comparison import difference, find_evaluation, gather
from tumorseg_train.evaluation.evaluate import count_mates
from tumorseg_train.evaluation.predictions import CONTRACT
from tumorseg_train.networks.run import CHECKPOINT, SPLIT, Run
from tumorseg_train.report import bootstrap
from tumorseg_train.report.bootstrap import draw_weights

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _few_groups_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny data has few; test_bootstrap.py holds that a page gives no interval of them."""
    monkeypatch.setattr(bootstrap, "MIN_GROUPS", 2)


Variant = Callable[..., Run]


@pytest.fixture
def variant(tiny_run: Run, tmp_path: Path) -> Variant:
    """Function that copies the run: with noise on its weights, and images grouped in pairs under a method."""

    def make(name: str, noise: float = 0.0, method: str = "grouped") -> Run:
        root = tmp_path / name
        shutil.copytree(tiny_run.root, root)
        generator = torch.Generator().manual_seed(1)
        state = tiny_run.model().state_dict()
        for key, value in state.items():
            if key.endswith("weight"):
                state[key] = value + noise * value.std() * torch.randn(value.shape, generator=generator)
        save_file(state, root / CHECKPOINT)
        manifest = tiny_run.manifest()
        items = [
            dataclasses.replace(
                item,
                group=f"group-{i // 2}",
                group_kind="slices",
                part=["train", "test"][i % 2 if method == "random" else i // 2 % 2],
            )
            for i, item in enumerate(manifest.items)
        ]
        changed = dataclasses.replace(manifest, items=tuple(items), method=method)
        changed.write(root / SPLIT)
        run = dataclasses.replace(
            tiny_run,
            root=root,
            checkpoint_sha256=sha256_of(root / CHECKPOINT),
            data={**tiny_run.data, "split_sha256": changed.digest()},
        )
        run.write()
        return Run.open(root)

    return make


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(compare, [str(argument) for argument in arguments])


def values_of(*arguments: object) -> dict[str, Any]:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output
    values: dict[str, Any] = json.loads(result.stdout)
    return values


def test_report(variant: Variant, tmp_path: Path) -> None:
    good, bad, leaky = variant("good"), variant("bad", 1.0), variant("leaky", method="random")
    out = tmp_path / "out"
    result = invoke(bad.root, good.root, leaky.root, "--out", out)
    assert result.exit_code == 0, result.output
    assert f"report: {out}/comparison.html" in result.stderr
    values = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    clean, random = values["splits"]
    assert (clean["method"], random["method"]) == ("grouped", "random")
    assert [run["path"] for run in clean["runs"]] == [str(good.root), str(bad.root)]  # the best first
    first, second = clean["runs"]
    assert first["against_best"] is None
    gap = second["against_best"]["mean_dice"]
    assert gap["value"] == pytest.approx(
        second["figures"]["mean_dice"]["value"] - first["figures"]["mean_dice"]["value"]
    )
    assert gap["low"] <= gap["value"] <= gap["high"]
    assert clean["mates"] == 0
    assert random["mates"] == random["images"]
    assert {leak["clean"] for leak in values["leaks"]} == {"unet resnet18 (good)", "unet resnet18 (bad)"}
    markdown = (out / "comparison.md").read_text(encoding="utf-8")
    page = (out / "comparison.html").read_text(encoding="utf-8")
    for text in (result.stdout, markdown, page):
        assert "unet resnet18 (good)" in text
        assert "not measured" in text
        assert "Clean against random split" in text
        assert "have a group mate in the training part" in text
    assert "Mean Dice against GFLOP" in page
    assert "Mean Dice against latency" not in page


def test_a_network_against_itself_differs_by_nothing(variant: Variant) -> None:
    first, second = gather([variant("a").root, variant("b").root], {}, draws=200)
    paired = difference(first, second, "mean_dice", paired=True)
    assert paired == {"value": 0, "low": 0, "high": 0}
    alone = difference(first, second, "mean_dice", paired=False)
    assert alone["value"] == 0
    assert alone["low"] < 0 < alone["high"]


def test_paired_difference_as_a_plain_loop(variant: Variant) -> None:
    first, second = gather([variant("a").root, variant("b", 0.6).root], {}, draws=300)
    found = difference(first, second, "mean_dice", paired=True)
    rows = [each.evaluation["images"] for each in (first, second)]
    weights = draw_weights([row["group"] for row in rows[0]], 300)
    gaps = []
    for times in weights:
        sums = [
            (sum(t * row["dice"] for t, row in zip(times, each, strict=True) if row["truth_px"]),
             sum(t for t, row in zip(times, each, strict=True) if row["truth_px"]))
            for each in rows
        ]  # fmt: skip
        if sums[0][1]:
            gaps.append(sums[0][0] / sums[0][1] - sums[1][0] / sums[1][1])
    assert (found["low"], found["high"]) == pytest.approx(np.percentile(gaps, (2.5, 97.5)))
    assert found["value"] > 0


def test_an_evaluation_is_used_if_it_fits(variant: Variant, tmp_path: Path) -> None:
    run = variant("run")
    assert find_evaluation(run, "test", CONTRACT, 2000) is None
    assert CliRunner().invoke(evaluate, [str(run.root)]).exit_code == 0
    kept = find_evaluation(run, "test", CONTRACT, 2000)
    assert kept is not None
    assert find_evaluation(run, "val", CONTRACT, 2000) is None
    assert find_evaluation(run, "test", CONTRACT, 100) is None
    assert find_evaluation(run, "test", "96", 2000) is None
    other = dataclasses.replace(run, checkpoint_sha256="0")
    assert find_evaluation(other, "test", CONTRACT, 2000) is None
    assert "evaluating" not in invoke(run.root, "--out", tmp_path / "out").stderr
    (run.root / "evaluation/evaluation.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="delete it, or evaluate the run again"):
        find_evaluation(run, "test", CONTRACT, 2000)


def test_an_evaluation_stands_for_a_run_that_lies_elsewhere(variant: Variant, tmp_path: Path) -> None:
    here, there = variant("here"), variant("there", 0.6)
    expected = values_of(here.root, there.root, "--out", tmp_path / "out")["splits"]
    assert CliRunner().invoke(evaluate, [str(there.root), "--out", str(tmp_path)]).exit_code == 0
    kept = tmp_path / "there.json"
    (tmp_path / "evaluation.json").rename(kept)
    shutil.rmtree(there.root)
    found = values_of(here.root, kept, "--out", tmp_path / "out")["splits"]
    names = [f"unet resnet18 ({label})" for label in ("here", kept)]
    for run, old, name in zip(found[0]["runs"], expected[0]["runs"], names, strict=True):
        assert {**run, "name": "", "path": ""} == {**old, "name": "", "path": ""}
        assert run["name"] == name
    assert found[0]["mates"] == expected[0]["mates"] == 0

    values = json.loads(kept.read_text(encoding="utf-8"))
    for changes, message in (
        ({"scale": "512"}, "part, scale and draws are (2, 'pytorch', 'test', '512', 2000), expected"),
        ({"kind": "bench"}, "kind is 'bench', expected 'evaluation'"),
        ({"images": None, "strata": None, "data": None}, "data is null, expected an object"),
        ({"predictor": {**values["predictor"], "backend": "mnn"}}, "'mnn'"),
        (
            {"predictor": {k: v for k, v in values["predictor"].items() if k != "gflop"}},
            "lacks the field predictor.gflop",
        ),
        (
            {"predictor": {**values["predictor"], "parameters": None}},
            "predictor.parameters is null, expected an integer",
        ),
    ):
        kept.write_text(json.dumps({**values, **changes}), encoding="utf-8")
        result = invoke(here.root, kept, "--out", tmp_path / "no")
        assert isinstance(result.exception, InputError)
        assert message in str(result.exception)
        assert str(kept) in str(result.exception)


def test_the_kept_evaluations_can_be_compared(tmp_path: Path) -> None:
    results = Path(__file__).parents[3] / "docs/results"
    names = ("unetplusplus", "unet", "deeplabv3", "unet-96-grouped", "unet-96-random")
    kept = [results / "unetplusplus-lite0-256.json", *(results / f"cpu-128/{name}.json" for name in names)]
    benches = [part for name in names[:3] for part in ("--bench", results / f"cpu-128/{name}.bench.json")]
    values = values_of(*kept, "--scale", "512", *benches, "--out", tmp_path / "out")
    clean, random = values["splits"]
    assert (clean["images"], clean["mates"]) == (122, 0)
    assert random["mates"] > 0
    assert {Path(run["path"]) for split in (clean, random) for run in split["runs"]} == set(kept)
    assert {run["architecture"] for run in clean["runs"] if run["latency"]} == set(names[:3])
    assert [Path(leak["random"].partition("(")[2]).name for leak in values["leaks"]] == [
        "unet-96-random.json)"
    ]


def test_latencies_and_what_belongs_to_nobody(variant: Variant, tmp_path: Path) -> None:
    run = variant("run")
    spread = {"median": 20.0, "p25": 19.0, "p75": 21.0}
    bench = {
        "kind": "bench", "machine": {"cpu": "A CPU", "gpu": "none"},
        "load_average": {"before": [0, 0, 0]}, "run": {"checkpoint_sha256": run.checkpoint_sha256},
            "bundle": {"path": "/nowhere", "sha256": "0"},
        "rows": [
            {"label": "MNN FP32", "variant": {"engine": "mnn", "device": "cpu"}, "role": "variant",
             "batch": 1, "threads": 2, "status": "measured",
             "stages": {"infer": spread, "end_to_end": spread}}
        ],
    }  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(bench), encoding="utf-8")
    (tmp_path / "b.json").write_text(
        json.dumps({**bench, "run": {"checkpoint_sha256": "f" * 64}}), encoding="utf-8"
    )
    values = values_of(
        run.root, "--bench", tmp_path / "a.json", "--bench", tmp_path / "b.json", "--out", tmp_path / "out"
    )
    assert values["splits"][0]["runs"][0]["latency"]["artefact"] == "MNN FP32"
    assert values["notes"] == ["The benchmark of checkpoint ffffffffffff belongs to none of these runs."]
    page = (tmp_path / "out/comparison.html").read_text(encoding="utf-8")
    assert "Mean Dice against latency" in page
    assert "20 (19 to 21)" in page


def test_refusals(variant: Variant, tmp_path: Path) -> None:
    run = variant("run")
    for arguments, message in (
        ((run.root, run.root), "is given twice"),
        ((tmp_path,), "has no run.json"),
        ((tmp_path / "absent",), "absent: does not exist, expected a run or an evaluation.json"),
        ((run.root, "--bench", run.root / SPLIT), "is no bench.json"),
    ):
        result = invoke(*arguments, "--out", tmp_path / "no")
        assert message in str(result.exception)
        assert "\n" not in str(result.exception)
    assert invoke().exit_code == 2
    assert not (tmp_path / "no").exists()


def test_mates_are_not_guessed(tiny_run: Run) -> None:
    assert count_mates(tiny_run.manifest(), "test") is None  # its split has no groups
