"""The tables of an evaluation: header and cells as text, for the page, for Markdown and for the terminal.

`values` are those of evaluation.json, before it is written or after it is read: a figure that is not defined
is NaN or None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tumorseg_train.evaluation.predictions import size_of
from tumorseg_train.report.tables import Table

PIXELS = ("dice", "iou", "precision", "recall", "accuracy")
NAMES = {"dice": "Dice (pooled: F1)", "iou": "IoU"}
KINDS = {"organ": "organ", "class": "class", "size": "size of the tumour"}


def known(value: float | None) -> bool:
    """True for a figure that is defined."""
    return value is not None and math.isfinite(value)


def or_nan(value: float | None) -> float:
    """NaN for a figure that is null in the JSON."""
    return math.nan if value is None else value


def share(value: float | None) -> str:
    """A figure between 0 and 1 with three decimals, '-' where it is not defined."""
    return f"{value:.3f}" if value is not None and math.isfinite(value) else "-"


def amount(value: float | None) -> str:
    """Pixels or millimetres: one decimal below 100."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"


def estimate_cell(estimate: Mapping[str, float | None], *, unit: str = "") -> str:
    """The figure and its interval; a share without a unit."""
    write = amount if unit else share
    text = write(estimate["value"])
    if text != "-" and unit:
        text = f"{text} {unit}"
    if known(estimate["low"]) and known(estimate["high"]):
        text += f" ({write(estimate['low'])} to {write(estimate['high'])})"
    return text


def whole(values: Mapping[str, Any]) -> dict[str, Any]:
    """The stratum of all images."""
    found: dict[str, Any] = values["strata"]["all"][0]
    return found


def summary_table(values: Mapping[str, Any]) -> Table:
    """The few figures that count, of all images and by organ and class: the one table of the page."""
    header = ("images", "count>", "mean Dice>", "pooled F1>", "lesion F1>", "left empty without a tumour>")
    strata = {each["name"]: each for kind in ("all", "organ", "class") for each in values["strata"][kind]}
    rows = [
        (
            name, str(each["images"]), estimate_cell(each["figures"]["mean_dice"]),
            estimate_cell(each["figures"]["pooled_f1"]), share(each["figures"]["lesion_f1"]["value"]),
            estimate_cell(each["figures"]["specificity"]),
        )
        for name, each in strata.items()
    ]  # fmt: skip
    return Table(header, tuple(rows), "All images, by organ and by class")


def main_table(values: Mapping[str, Any]) -> Table:
    """Figures of pixels, per image and pooled."""
    all_images = whole(values)
    figures = all_images["figures"]
    rows = [
        (
            NAMES.get(name, name),
            estimate_cell(figures[f"mean_{name}"]),
            estimate_cell(figures[f"pooled_{'f1' if name == 'dice' else name}"]),
        )
        for name in PIXELS
    ]
    note = (
        f"Means are of the {all_images['images_with_tumour']} images with a tumour; pooled are the pixels "
        f"of all {all_images['images']}. In brackets: 95 % intervals from {values['draws']} draws of "
        f"{values['data']['groups']} groups."
    )
    return Table(("", "mean of images>", "pooled>"), tuple(rows), "Pixels", note)


def lesion_table(values: Mapping[str, Any]) -> Table:
    """Distances and lesions."""
    figures = whole(values)["figures"]
    rows = [("HD95, where something was marked", estimate_cell(figures["hd95_px"], unit="px"))]
    if known(figures["hd95_mm"]["value"]):
        rows.append(("HD95 of images with known spacing", estimate_cell(figures["hd95_mm"], unit="mm")))
    rows.append(("share of tumours' images with nothing marked", estimate_cell(figures["missed"])))
    rows += [
        (f"lesions: {n}", estimate_cell(figures[f"lesion_{n.lower()}"]))
        for n in ("F1", "precision", "recall")
    ]
    return Table(
        ("", "value>"),
        tuple(rows),
        "Distances and lesions",
        f"Pixels of {size_words(values)}. "
        "A lesion is found by an IoU of at least 0.1; each speck counts as one.",
    )


def healthy_table(values: Mapping[str, Any]) -> Table:
    """What was marked in images without a tumour."""
    all_images = whole(values)
    count = all_images["images"] - all_images["images_with_tumour"]
    figures = all_images["figures"]
    rows = (
        ("images", str(count)),
        ("specificity: share with nothing marked", estimate_cell(figures["specificity"])),
        ("specificity of pixels", estimate_cell(figures["pixel_specificity"])),
        ("false-positive area per image", estimate_cell(figures["false_positive_px"], unit="px")),
    )
    return Table(("", "value>"), rows, "Images without a tumour", "They never count as Dice 1.")


def strata_table(values: Mapping[str, Any], kind: str) -> Table:
    """Figures by 'organ', 'class' or 'size'."""
    header = (
        KINDS[kind], "images>", "with tumour>", "groups>", "mean Dice>", "pooled F1>", "IoU>", "precision>",
        "recall>", "HD95 px>", "lesion F1>", "specificity>",
    )  # fmt: skip
    rows = []
    for each in values["strata"][kind]:
        f = each["figures"]
        rows.append(
            (
                each["name"], str(each["images"]), str(each["images_with_tumour"]), str(each["groups"]),
                estimate_cell(f["mean_dice"]), estimate_cell(f["pooled_f1"]), share(f["mean_iou"]["value"]),
                share(f["mean_precision"]["value"]), share(f["mean_recall"]["value"]),
                amount(f["hd95_px"]["value"]), share(f["lesion_f1"]["value"]),
                estimate_cell(f["specificity"]),
            )
        )  # fmt: skip
    return Table(header, tuple(rows), f"By {KINDS[kind]}")


def calibration_table(values: Mapping[str, Any]) -> Table:
    """ECE and Brier score."""
    rows = [
        (
            {"all": "all pixels", "near": "near the tumour"}[where],
            str(found["pixels"]),
            "-" if not known(found["ece"]["value"]) else _small(found["ece"]),
            "-" if not known(found["brier"]) else f"{found['brier']:.4f}",
        )
        for where, found in values["calibration"].items()
    ]
    note = (
        "ECE over 20 equal steps of probability. Near: the box around the true mask, twice as high and wide."
    )
    return Table(("", "pixels>", "ECE>", "Brier score>"), tuple(rows), "Calibration", note)


def image_table(values: Mapping[str, Any]) -> Table:
    """Every image, the worst first; images without a tumour last, the most marked first."""
    images = sorted(
        values["images"],
        key=lambda i: (0, i["dice"], i["image"]) if i["truth_px"] else (1, -i["predicted_px"], i["image"]),
    )
    header = (
        "image", "class", "Dice>", "IoU>", "precision>", "recall>", "HD95 px>", "true px>", "marked px>",
        "lesions true>", "marked>", "matched>", "group",
    )  # fmt: skip
    rows = [
        (
            i["image"], f"{i['organ']}, {i['label']}", share(i["dice"]), share(i["iou"]),
            share(i["precision"]), share(i["recall"]), amount(i["hd95_px"]), str(i["truth_px"]),
            str(i["predicted_px"]), str(i["truth_lesions"]), str(i["predicted_lesions"]),
            str(i["matched_lesions"]), i["group"],
        )
        for i in images
    ]  # fmt: skip
    return Table(header, tuple(rows), "Every image")


def tables(values: Mapping[str, Any]) -> list[Table]:
    """All tables but that of single images."""
    return [
        main_table(values), lesion_table(values), healthy_table(values),
        *(strata_table(values, kind) for kind in KINDS), calibration_table(values),
    ]  # fmt: skip


def _small(estimate: Mapping[str, float | None]) -> str:
    low, high = estimate["low"], estimate["high"]
    text = f"{estimate['value']:.4f}"
    return f"{text} ({low:.4f} to {high:.4f})" if known(low) and known(high) else text


def size_words(values: Mapping[str, Any]) -> str:
    """At which size masks were compared."""
    size = size_of(values["scale"], values["height"], values["width"])
    return "each image's own size" if size is None else f"{size[0]}x{size[1]}"


def facts(values: Mapping[str, Any]) -> list[str]:
    """What was evaluated, and how, a sentence each; then the notes."""
    predictor, data = values["predictor"], values["data"]
    versions = ", ".join(f"{name} {version}" for name, version in predictor["versions"].items())
    size = f"{values['height']}x{values['width']} (height x width in pixels)"
    where = (
        f"Masks are compared at the network's size, {size}, with the true mask at that size."
        if values["scale"] == "contract"
        else f"The network runs at {size}; masks are compared at {size_words(values)}."
    )
    split = {
        "grouped": "Groups are never on two sides of the split.",
        "random": "The split is random: near-duplicates and slices of one patient lie on two sides, and "
        "the figures are too good by an unknown amount.",
        "unknown": "How the split was made is not known: near-duplicates and slices of one patient may "
        "lie on two sides.",
    }[data["method"]]
    kinds = "".join(f", {count} of kind '{kind}'" for kind, count in data["group_kinds"].items())
    network = (
        f"Network: {predictor['name']}, checkpoint {str(predictor['checkpoint_sha256'])[:12]}, under "
        f"{predictor['backend']} on {predictor['device']} in {predictor['precision']} ({versions})."
    )
    images = (
        f"Images: {whole(values)['images']} of part '{data['part']}' in {data['groups']} groups{kinds}; "
        f"split {data['split_sha256'][:12]}. {split}"
    )
    baseline = share(values["threshold_baseline"]["mean_dice"])
    limit = values["threshold"]
    decision = "The largest probability decides." if limit is None else f"Threshold: probability {limit:g}."
    return [
        network,
        images,
        *(["They are phantoms, drawn images."] if data["phantoms"] else []),
        f"{where} {decision}",
        f"Best single intensity threshold on the same images: mean Dice {baseline}.",
        *values["notes"],
    ]
