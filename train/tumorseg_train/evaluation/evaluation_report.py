"""The report of an evaluation: one HTML page, and the same tables in Markdown."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tumorseg_train.evaluation.cases import KINDS, Case
from tumorseg_train.evaluation.metrics import ImageScore
from tumorseg_train.evaluation.tables import (
    amount,
    calibration_table,
    estimate_cell,
    facts,
    healthy_table,
    image_table,
    known,
    lesion_table,
    main_table,
    or_nan,
    share,
    size_words,
    strata_table,
    summary_table,
    tables,
    whole,
)
from tumorseg_train.report.bootstrap import MIN_GROUPS
from tumorseg_train.report.case_view import page_case
from tumorseg_train.report.charts import Bar, bars, histogram, lines
from tumorseg_train.report.page import (
    PASSED,
    REFUSED,
    UNVERIFIED,
    Verdict,
    bullets,
    captioned,
    page,
    side_by_side,
)

TENTHS = [i / 10 for i in range(11)]
MEANINGS = """
Dice = 2|P∩T| / (|P|+|T|), with P the marked and T the true pixels (Dice 1945). IoU = |P∩T| / |P∪T|
(Jaccard 1912). Precision = |P∩T| / |P|, and 0 where nothing is marked though there is a tumour.
Recall = |P∩T| / |T|. Accuracy is the share of pixels decided as in truth.

Pooled figures put the pixels of all images together, those without a tumour included; means are over the
images with a tumour.

HD95 is the larger of the two 95th percentiles of the distances from the border of one mask to the border of
the other (Metrics Reloaded, Maier-Hein et al. 2024).

Lesions are 8-connected; true and marked ones are paired by falling IoU of at least 0.1, each once (Jaeger et
al. 2020). F1 = 2·pairs / (true + marked).

Intervals are percentiles 2.5 and 97.5 over draws of whole groups with replacement (cluster bootstrap, Davison
& Hinkley 1997). With few groups they are too narrow, and a share of 0 or 1 gets no width.

ECE = Σ n_b/n · |mean y - mean p| over 20 equal steps of p (Naeini et al. 2015, Guo et al. 2017). Brier score
= mean (p - y)² (Brier 1950).
"""


def evaluation_page(
    values: Mapping[str, Any], cases: Sequence[Case], curves: Mapping[str, list[tuple[float, float]]]
) -> str:
    """The page. curves: loss and Dice by epoch as `read_curves` returns them, empty for a bundle."""
    folded = [
        ("What was evaluated, and how", bullets(facts(values))),
        ("Pixels", captioned(main_table(values))),
        ("Distances and lesions", captioned(lesion_table(values))),
        ("Images without a tumour", captioned(healthy_table(values))),
        ("By organ, class and size", _strata(values)),
        ("Spread of the Dice", _stats(values)),
        ("Calibration", _calibration(values)),
        *([("Training", _curves(curves))] if curves else []),
        ("Every image", captioned(image_table(values))),
        ("What the figures mean", bullets(MEANINGS.strip().split("\n\n"))),
    ]
    shown = [
        page_case(
            f"{KINDS[case.kind]}: {case.score.image}", _said(case.score), case.pixels, case.truth, case.marked
        )
        for case in cases
    ]
    return page(
        f"Evaluation of {values['predictor']['name']}",
        verdict(values),
        captioned(summary_table(values), cards=True),
        cases=shown,
        folded=folded,
        lead=f"{whole(values)['images']} images of part '{values['data']['part']}' in "
        f"{values['data']['groups']} groups; figures at {size_words(values)}, intervals of 95 %.",
    )


def verdict(values: Mapping[str, Any]) -> Verdict:
    """Red where one intensity threshold does as well, amber where the images say too little."""
    data, dice = values["data"], whole(values)["figures"]["mean_dice"]
    baseline = values["threshold_baseline"]["mean_dice"]
    said = f"Mean Dice {estimate_cell(dice)}"
    if known(dice["value"]) and known(baseline) and dice["value"] <= baseline:
        return Verdict(
            REFUSED, f"{said}: no better than a single intensity threshold ({share(baseline)}).", "useless"
        )
    doubts = {
        "the images are phantoms": data["phantoms"],
        "the split is random, so near-duplicates lie on both sides": data["method"] == "random",
        "how the split was made is not known": data["method"] == "unknown",
        f"there are only {data['groups']} groups": data["groups"] < MIN_GROUPS,
    }
    if reasons := [reason for reason, holds in doubts.items() if holds]:
        return Verdict(
            UNVERIFIED, f"{said}, which says little about patients: {'; '.join(reasons)}.", "doubtful"
        )
    return Verdict(PASSED, f"{said} on a clean split (single threshold: {share(baseline)}).", "measured")


def title(values: Mapping[str, Any]) -> str:
    """The page's title."""
    figures = whole(values)["figures"]
    return (
        f"{values['predictor']['name']}: Dice {share(figures['mean_dice']['value'])}, "
        f"pooled F1 {share(figures['pooled_f1']['value'])}"
    )


def evaluation_markdown(values: Mapping[str, Any]) -> str:
    """The tables as Markdown."""
    parts = [f"# {title(values)}\n", "".join(f"- {fact}\n" for fact in facts(values))]
    for each in tables(values):
        parts.append(f"## {each.title}\n")
        parts.append(each.to_markdown())
        parts += [f"{each.note}\n"] if each.note else []
    return "\n".join(parts)


def read_curves(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Columns of a run's curves.csv over its column 'epoch'; nothing where the file is absent."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in (rows[0] if rows else {}) if "loss" in name or "dice" in name]
    return {name: [(float(row["epoch"]), float(row[name])) for row in rows] for name in names}


def _strata(values: Mapping[str, Any]) -> Markup:
    charts = []
    for kind in ("organ", "class", "size"):
        rows = [
            Bar(
                f"{each['name']}, {each['images_with_tumour']} images",
                or_nan(each["figures"]["mean_dice"]["value"]),
                each["figures"]["mean_dice"]["low"],
                each["figures"]["mean_dice"]["high"],
            )
            for each in values["strata"][kind]
            if each["images_with_tumour"]
        ]
        charts.append(bars(f"Mean Dice by {kind}, with 95 % intervals", rows, top=1))
    shown = [captioned(strata_table(values, kind), caption=True) for kind in ("organ", "class", "size")]
    return side_by_side(charts) + Markup().join(shown)


def _stats(values: Mapping[str, Any]) -> Markup:
    sick = [image for image in values["images"] if image["truth_px"]]
    charts = [
        histogram("Dice of the images with a tumour", [i["dice"] for i in sick], x="Dice", edges=TENTHS)
    ]
    distances = [image["hd95_px"] for image in sick if known(image["hd95_px"])]
    if distances:
        charts.append(histogram("HD95, where something was marked", distances, x="HD95 in pixels"))
    return side_by_side(charts)


def _calibration(values: Mapping[str, Any]) -> Markup:
    series = {
        {"all": "all pixels", "near": "near the tumour"}[where]: [
            (point["predicted"], point["observed"]) for point in found["points"]
        ]
        for where, found in values["calibration"].items()
        if found["points"]
    }
    chart = lines(
        "Reliability: above the dashed line the network is too timid, below it too sure",
        series,
        x="mean predicted probability",
        y="share of true pixels",
        limits=(0, 1),
        diagonal=True,
    )
    return captioned(calibration_table(values)) + chart


def _said(score: ImageScore) -> str:
    if not score.truth_px:
        return f"{score.predicted_px} pixels marked, where there is no tumour"
    return (
        f"Dice {score.dice:.3f}, {_distance(score)}, lesions {score.matched_lesions} of "
        f"{score.truth_lesions} found"
    )


def _distance(score: ImageScore) -> str:
    return f"HD95 {amount(score.hd95_px)} px" if score.predicted_px else "nothing marked"


def _curves(curves: Mapping[str, list[tuple[float, float]]]) -> Markup:
    charts = []
    for word, y in (("loss", "loss"), ("dice", "Dice")):
        chosen = {name.replace("_", " "): points for name, points in curves.items() if word in name}
        if chosen:
            limits = (0.0, 1.0) if word == "dice" else None
            charts.append(lines(f"{y} by epoch", chosen, x="epoch", y=y, limits=limits))
    return side_by_side(charts)
