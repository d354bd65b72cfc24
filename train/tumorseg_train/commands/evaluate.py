"""`tumorseg evaluate`: what a network is worth on images that it has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tumorseg_runtime.cli.options import RUN, Existing, Options, command, out_option
from tumorseg_runtime.cli.terminal import say_text
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.text import printable


@dataclass(frozen=True)
class EvaluateOptions(Options):
    """Of `tumorseg evaluate`; None: as the run or the bundle says. spacing: 'ORGAN=MM'."""

    predictor: Path
    part: str
    split: Path | None
    data: Path | None
    backend: str | None
    device: str | None
    precision: str | None
    size: int | None
    scale: str
    spacing: tuple[str, ...]
    out: Path | None


@command(
    EvaluateOptions,
    example="tumorseg evaluate runs/first --part val",
    sections={
        "Images": ("part", "split", "data", "spacing"),
        "Network": ("backend", "device", "precision", "size", "scale"),
    },
)
@click.argument("predictor", metavar="RUN_OR_BUNDLE", type=Existing("a run or a bundle", RUN, "bundle.json"))
@click.option(
    "--part",
    default="test",
    show_default=True,
    type=click.Choice(["train", "val", "test"]),
    help="Part of the split.",
)
@click.option(
    "--split",
    type=Existing("a split.json or a folder with one"),
    help="A split.json, or a folder that holds one, such as a run. A bundle needs it [default: the run's].",
)
@click.option(
    "--data",
    type=Existing("a folder of images"),
    help="Folder of the images [default: the one the run names].",
)
@click.option("--backend", help="Of a bundle [default: onnxruntime]. A run is run by PyTorch.")
@click.option("--device", help="Of a bundle's backend [default: cpu].")
@click.option("--precision", help="Of a bundle's artefact [default: fp32].")
@click.option(
    "--size", type=int, help="Height and width at which a run's network is run [default: its contract's]."
)
@click.option(
    "--scale",
    default="contract",
    show_default=True,
    metavar="contract|original|PIXELS",
    help="Compare masks at the network's size, at each image's own, or at a square of so many pixels.",
)
@click.option(
    "--spacing",
    multiple=True,
    metavar="ORGAN=MM",
    help="Distance of neighbouring pixels of an organ's image files, such as brain=0.49. Gives HD95 in mm.",
)
@out_option(
    help="Folder of the report [default: RUN/evaluation, or BUNDLE.evaluation beside the bundle].",
)
def evaluate(options: EvaluateOptions) -> None:
    """Judge a network on a part of its split: Dice, distances, lesions, calibration, with intervals.

    Masks are compared at the network's own input size (512x512 unless it was trained otherwise). The report
    is one HTML page with pictures, beside it the same as Markdown and JSON. Each figure is defined in
    docs/evaluation.md.
    """
    from tumorseg_train.evaluation.cases import draw_cases
    from tumorseg_train.evaluation.evaluate import NAME, run_evaluation
    from tumorseg_train.evaluation.evaluation_report import evaluation_markdown, evaluation_page, read_curves
    from tumorseg_train.evaluation.predictions import size_of
    from tumorseg_train.evaluation.predictor import open_predictor
    from tumorseg_train.evaluation.tables import estimate_cell, facts, tables, whole
    from tumorseg_train.report.tables import json_text, write_report

    opened = open_predictor(
        options.predictor,
        backend=options.backend,
        device=options.device,
        precision=options.precision,
        size=options.size,
    )
    size_of(options.scale, opened.contract.height, opened.contract.width)  # is the scale one at all?
    spacing = read_spacing(options.spacing)
    with options.progress(f"{options.part} images") as tell:
        found = run_evaluation(
            opened,
            part=options.part,
            split=options.split,
            data=options.data,
            scale=options.scale,
            spacing=spacing,
            tell=tell,
        )
    values = found.values
    folder = options.out or default_folder(options.predictor, opened.run is not None)
    curves = read_curves(opened.run.root / "curves.csv") if opened.run else {}
    write_report(
        folder,
        NAME,
        values=values,
        markdown=evaluation_markdown(values),
        page=evaluation_page(values, draw_cases(found), curves),
    )
    if options.as_json:
        say_text(json_text(values), nl=False)
    else:
        lines: list[Any] = [*map(printable, facts(values)), ""]
        for each in tables(values):
            lines += [each.title, each.to_text()]
        say_text("\n".join(lines))
    options.log(f"report: {folder / NAME}.html")
    images = whole(values)
    dice = estimate_cell(images["figures"]["mean_dice"])
    options.verdict(f"{options.predictor}: mean Dice {dice} on {images['images']} {options.part} images")


def default_folder(predictor: Path, is_run: bool) -> Path:
    """A run takes its report in; a bundle is sealed."""
    return (
        predictor / "evaluation" if is_run else predictor.with_name(f"{predictor.resolve().name}.evaluation")
    )


def read_spacing(texts: tuple[str, ...]) -> dict[str, float]:
    """'brain=0.49' -> {'brain': 0.49}, in mm; raises InputError."""
    spacing = {}
    for text in texts:
        organ, _, number = text.partition("=")
        try:
            millimetres = float(number)
        except ValueError:
            millimetres = 0.0
        if not organ or not 0 < millimetres < 100:
            raise InputError(
                f"--spacing is '{text}', expected ORGAN=MM with millimetres above 0, such as brain=0.49"
            )
        spacing[organ] = millimetres
    return spacing
