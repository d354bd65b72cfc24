"""An evaluation: a predictions with all that a reader must know of it; the values of evaluation.json."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from tumorseg_runtime.core.progress import Tell, silent
from tumorseg_runtime.core.records import Count, Fields, Range
from tumorseg_train.data.phantoms import NOTE
from tumorseg_train.data.split import Manifest
from tumorseg_train.evaluation.metrics import NAN, ImageScore
from tumorseg_train.evaluation.predictions import CONTRACT, Predictions, score_part
from tumorseg_train.evaluation.predictor import Predictor, find_manifest, seen_in_training
from tumorseg_train.evaluation.summary import size_class
from tumorseg_train.report.bootstrap import DRAWS

SCHEMA = 2
NAME = "evaluation"
# What is read of an evaluation.json, and as what.
_ESTIMATE = Fields(value=(float, None), low=(float, None), high=(float, None))
_STRATUM = Fields(
    name=str, images=Count, images_with_tumour=Count, figures=Fields(mean_dice=_ESTIMATE, pooled_f1=_ESTIMATE)
)
_SCORE = {name: str if kind is str else (kind, None) for name, kind in get_type_hints(ImageScore).items()}
FIELDS = Fields(
    kind=Literal["evaluation"],
    schema=int,
    predictor=Fields(
        checkpoint_sha256=str, backend=str, architecture=str, encoder=str, parameters=Count, gflop=float
    ),
    data=Fields(
        split_sha256=str,
        part=str,
        method=Literal["grouped", "random", "unknown"],
        groups=Count,
        mates=(Count, None),
    ),
    scale=str,
    height=Count,
    width=Count,
    threshold=float | None,
    draws=Annotated[int, Range(1)],
    strata=Fields(all=[_STRATUM], organ=[_STRATUM]),
    images=[Fields(group=str, **_SCORE)],
)


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """A predictor judged on a part of a split; `values` are those of evaluation.json (docs/evaluation.md)."""

    predictor: Predictor
    manifest: Manifest
    predictions: Predictions
    values: dict[str, Any]


def run_evaluation(
    predictor: Predictor,
    *,
    part: str = "test",
    split: Path | None = None,
    data: Path | None = None,
    scale: str = CONTRACT,
    spacing: Mapping[str, float] | None = None,
    draws: int = DRAWS,
    tell: Tell = silent,
) -> Evaluation:
    """Judge the predictor; arguments as `find_manifest` and `score_part` take them."""
    manifest, notes = find_manifest(predictor, split, data)
    seen = seen_in_training(predictor, manifest, part)
    if seen and part != "train":
        notes.append(
            f"{len(seen)} of these images were in its training part ({', '.join(seen[:3])}, ...): "
            "the figures do not tell how it does on new images."
        )
    predictions = score_part(
        predictor.infer, manifest, part, predictor.contract, scale=scale, spacing=spacing, tell=tell
    )
    if predictions.vanished:
        notes.append(
            f"The tumour of {len(predictions.vanished)} images is lost in resizing, and they count as images "
            f"without one: {', '.join(predictions.vanished)}."
        )
    if part == "train":
        notes.append("These are the images that it was trained on.")
    contract = predictor.contract
    if contract.temperature != 1:
        border = (
            ""
            if contract.threshold is None
            else f", where the threshold is {contract.reported_threshold:.3g}"
        )
        notes.append(f"Probabilities are reported at temperature {contract.temperature:.4g}{border}.")
    return Evaluation(
        predictor, manifest, predictions, _values(predictor, manifest, part, scale, predictions, notes, draws)
    )


def _values(
    predictor: Predictor,
    manifest: Manifest,
    part: str,
    scale: str,
    predictions: Predictions,
    notes: list[str],
    draws: int,
) -> dict[str, Any]:
    contract = predictor.contract
    strata = predictions.strata(draws)
    kinds = Counter({item.group: item.group_kind for item in predictions.items if item.group}.values())
    return {
        "schema": SCHEMA,
        "kind": NAME,
        "tumorseg": importlib.metadata.version("tumorseg"),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "predictor": predictor.facts,
        "data": {
            "root": str(manifest.root),
            "phantoms": (manifest.root / NOTE).is_file(),
            "part": part,
            "split_sha256": manifest.digest(),
            "method": manifest.method,
            "mates": count_mates(manifest, part),
            "groups": len(set(predictions.groups)),
            "group_kinds": dict(sorted(kinds.items())),
        },
        "scale": scale,
        "height": contract.height,
        "width": contract.width,
        "threshold": contract.threshold,
        "draws": draws,
        "notes": notes,
        "strata": {kind: [each.to_dict() for each in found] for kind, found in strata.items()},
        "calibration": predictions.calibration(draws),
        "threshold_baseline": predictions.baseline,
        "images": [
            {
                "organ": item.organ,
                "label": item.label,
                "group": item.group,
                "size": size_class(score),
                **dataclasses.asdict(score),
                **{name: getattr(score, name) for name in ("dice", "iou", "precision", "recall", "accuracy")},
            }
            for item, score in zip(predictions.items, predictions.scores, strict=True)
        ],
    }


def count_mates(manifest: Manifest, part: str) -> int | None:
    """Images of the part of which an image of the same group is in the training part; None without groups."""
    if not all(item.group for item in manifest.items):
        return None
    trained = {item.group for item in manifest.part("train")}
    return sum(item.group in trained for item in manifest.part(part))


def read_scores(values: dict[str, Any]) -> list[ImageScore]:
    """The scores in the values of an evaluation.json."""
    fields = [field.name for field in dataclasses.fields(ImageScore)]
    scores = []
    for row in values["images"]:
        known: dict[str, Any] = {name: NAN if row[name] is None else row[name] for name in fields}
        scores.append(ImageScore(**known))
    return scores
