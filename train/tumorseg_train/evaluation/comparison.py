"""Runs side by side: which network is better, by how much, and at what cost.

Runs on the same split are compared image by image, draw by draw (paired bootstrap by group). A clean and a
random split have different test images: their difference is that of two independent sets of draws.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.paths import require
from tumorseg_runtime.core.progress import Lines
from tumorseg_runtime.core.records import Format
from tumorseg_train.data.split import GROUPED, RANDOM
from tumorseg_train.evaluation.complexity import Latency
from tumorseg_train.evaluation.evaluate import FIELDS as EVALUATION_FIELDS
from tumorseg_train.evaluation.evaluate import NAME as EVALUATION
from tumorseg_train.evaluation.evaluate import SCHEMA as EVALUATION_SCHEMA
from tumorseg_train.evaluation.evaluate import read_scores, run_evaluation
from tumorseg_train.evaluation.predictions import CONTRACT
from tumorseg_train.evaluation.predictor import PYTORCH, open_predictor
from tumorseg_train.evaluation.summary import ratios
from tumorseg_train.networks.run import Run
from tumorseg_train.report.bootstrap import DRAWS, FloatArray, draw_weights, interval

SCHEMA = 1
NAME = "comparison"
COMPARED = ("mean_dice", "pooled_f1")


@dataclasses.dataclass(frozen=True, eq=False)
class ComparedRun:
    """A network with its evaluation (the values of evaluation.json) and its latency.

    path: of its run, or of the evaluation.json alone.
    """

    path: Path
    name: str
    evaluation: dict[str, Any]
    latency: Latency | None = None

    @property
    def method(self) -> str:
        """How its data was split."""
        return str(self.evaluation["data"]["method"])

    @property
    def network(self) -> tuple[str, str, int, int]:
        """Architecture, encoder, height and width."""
        predictor = self.evaluation["predictor"]
        return (
            predictor["architecture"],
            predictor["encoder"],
            self.evaluation["height"],
            self.evaluation["width"],
        )

    def draws(self, figure: str, seed: int) -> FloatArray:
        """The figure in each draw; the same seed gives the same draws on the same split."""
        groups = [image["group"] or image["image"] for image in self.evaluation["images"]]
        weights = draw_weights(groups, self.evaluation["draws"], seed)
        return ratios(read_scores(self.evaluation))[figure].draws(weights)

    def groups(self) -> set[str]:
        """Groups of the images with a tumour."""
        return {i["group"] or i["image"] for i in self.evaluation["images"] if i["truth_px"]}

    def value(self, figure: str) -> float:
        """The figure over all images; NaN where it is not defined."""
        value = self.evaluation["strata"]["all"][0]["figures"][figure]["value"]
        return float("nan") if value is None else float(value)


def gather(
    paths: Sequence[Path],
    latencies: Mapping[str, Latency],
    *,
    part: str = "test",
    scale: str = CONTRACT,
    draws: int = DRAWS,
    log: Callable[[str], None] = lambda line: None,
) -> list[ComparedRun]:
    """Open runs and evaluate them, or read evaluations of runs that lie elsewhere.

    paths: folders of runs, of which an evaluation that lies there and fits is taken as it is, and files
    evaluation.json. scale: at which masks are compared, as `tumorseg_train.evaluation.predictions.score`
    takes it. Raises InputError where one is given twice or is not there, or a file is no evaluation of a run
    that fits.
    """
    twice = [path for path, count in Counter(path.resolve() for path in paths).items() if count > 1]
    if twice:
        raise InputError(f"{twice[0]}: is given twice, expected different runs: leave one out")
    for path in paths:
        require(path, "a run or an evaluation.json", "name one")
    found = []
    for path in paths:
        evaluation = (
            _of_file(path, part, scale, draws) if path.is_file() else _of_run(path, part, scale, draws, log)
        )
        predictor = evaluation["predictor"]
        found.append(ComparedRun(path, f"{predictor['architecture']} {predictor['encoder']}", evaluation))
    plain = Counter(each.name for each in found)
    return [
        dataclasses.replace(
            each,
            name=each.name if plain[each.name] == 1 else f"{each.name} ({_label(each.path)})",
            latency=latencies.get(each.evaluation["predictor"]["checkpoint_sha256"]),
        )
        for each in found
    ]


def _label(path: Path) -> str:
    """What tells networks of the same name apart."""
    return str(path) if path.is_file() else path.resolve().name


def _of_run(root: Path, part: str, scale: str, draws: int, log: Callable[[str], None]) -> dict[str, Any]:
    run = Run.open(root)
    evaluation = find_evaluation(run, part, scale, draws)
    if evaluation is None:
        log(f"{root}: evaluating on {part} (`tumorseg evaluate` keeps the result for the next time)")
        tell = Lines(f"{root}: evaluating", log)
        evaluation = run_evaluation(
            open_predictor(root), part=part, scale=scale, draws=draws, tell=tell
        ).values
    return evaluation


def _of_file(path: Path, part: str, scale: str, draws: int) -> dict[str, Any]:
    values = _read(path, "give a run, or an evaluation.json of `tumorseg evaluate`")
    found = (
        values["schema"], values["predictor"]["backend"], values["data"]["part"], values["scale"],
        values["draws"],
    )  # fmt: skip
    wanted = (EVALUATION_SCHEMA, PYTORCH, part, scale, draws)
    if found != wanted:
        raise InputError(
            f"{path}: schema, backend, part, scale and draws are {found}, expected {wanted}: ask for these, "
            "or evaluate the run again"
        )
    return values


def find_evaluation(run: Run, part: str, scale: str, draws: int) -> dict[str, Any] | None:
    """The evaluation that lies in the run, if it is of this very network, split, part and scale."""
    path = run.root / EVALUATION / f"{EVALUATION}.json"
    if not path.is_file():
        return None
    values = _read(path, "delete it, or evaluate the run again")
    found = (
        values["schema"], values["predictor"]["checkpoint_sha256"], values["predictor"]["backend"],
        values["data"]["split_sha256"], values["data"]["part"], values["scale"],
        values["height"], values["width"], values["threshold"], values["draws"],
    )  # fmt: skip
    contract = run.contract
    wanted = (
        EVALUATION_SCHEMA, run.checkpoint_sha256, PYTORCH, run.data["split_sha256"], part, scale,
        contract.height, contract.width, contract.threshold, draws,
    )  # fmt: skip
    return values if found == wanted else None


def _read(path: Path, advice: str) -> dict[str, Any]:
    """The values of an evaluation.json; raises InputError with the advice where it is none."""
    values: dict[str, Any] = Format("evaluation", advice, error=InputError).read(path, EVALUATION_FIELDS)
    return values


def difference(first: ComparedRun, second: ComparedRun, figure: str, *, paired: bool) -> dict[str, float]:
    """first - second with its interval; paired: on the same images, draw by draw."""
    gaps = first.draws(figure, 0) - second.draws(figure, 0 if paired else 1)
    low, high = interval(gaps, min(len(first.groups()), len(second.groups())))
    return {"value": first.value(figure) - second.value(figure), "low": low, "high": high}


def compare(compared_runs: Sequence[ComparedRun], notes: Sequence[str] = ()) -> dict[str, Any]:
    """The plain values of comparison.json (docs/evaluation.md)."""
    fields: dict[str, list[ComparedRun]] = {}
    for each in compared_runs:
        fields.setdefault(each.evaluation["data"]["split_sha256"], []).append(each)
    return {
        "schema": SCHEMA,
        "kind": NAME,
        "tumorseg": importlib.metadata.version("tumorseg"),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "part": compared_runs[0].evaluation["data"]["part"],
        "scale": compared_runs[0].evaluation["scale"],
        "notes": list(notes),
        "splits": [
            {
                "split_sha256": split,
                "method": rivals[0].method,
                "images": rivals[0].evaluation["strata"]["all"][0]["images"],
                "groups": rivals[0].evaluation["data"]["groups"],
                "mates": rivals[0].evaluation["data"]["mates"],
                "runs": _ranked(rivals),
            }
            for split, rivals in fields.items()
        ],
        "leaks": [
            {
                "clean": clean.name,
                "random": leaky.name,
                "mates": leaky.evaluation["data"]["mates"],
                **{
                    figure: {
                        "clean": clean.value(figure),
                        "random": leaky.value(figure),
                        "difference": difference(leaky, clean, figure, paired=False),
                    }
                    for figure in COMPARED
                },
            }
            for clean in compared_runs
            for leaky in compared_runs
            if (clean.method, leaky.method) == (GROUPED, RANDOM) and clean.network == leaky.network
        ],
    }


def _ranked(rivals: Sequence[ComparedRun]) -> list[dict[str, Any]]:
    """Runs on one split, the best mean Dice first, each against the best."""
    order = sorted(rivals, key=lambda each: (-np.nan_to_num(each.value("mean_dice"), nan=-1), each.name))
    best = order[0]
    return [
        {
            "name": each.name,
            "path": str(each.path),
            **dict(zip(("architecture", "encoder", "height", "width"), each.network, strict=True)),
            "checkpoint_sha256": each.evaluation["predictor"]["checkpoint_sha256"],
            "parameters": each.evaluation["predictor"]["parameters"],
            "gflop": each.evaluation["predictor"]["gflop"],
            "latency": None if each.latency is None else dataclasses.asdict(each.latency),
            "figures": each.evaluation["strata"]["all"][0]["figures"],
            "organs": {
                found["name"]: found["figures"]["mean_dice"] for found in each.evaluation["strata"]["organ"]
            },
            "against_best": None
            if each is best
            else {figure: difference(each, best, figure, paired=True) for figure in COMPARED},
        }
        for each in order
    ]
