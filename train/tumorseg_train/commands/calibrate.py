"""`tumorseg calibrate`: what a device needs to watch its input and to report probabilities that hold."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from tumorseg_runtime.cli.options import RUN, Existing, Options, command
from tumorseg_runtime.cli.terminal import say_text
from tumorseg_runtime.core.errors import InputError


@dataclasses.dataclass(frozen=True)
class CalibrateOptions(Options):
    """Of `tumorseg calibrate`. data: None for the folder that the run names."""

    run: Path
    data: Path | None
    temperature: bool
    guard: bool


@command(CalibrateOptions, example="tumorseg calibrate runs/first")
@click.argument("run", type=Existing("a run", RUN))
@click.option(
    "--data",
    type=Existing("a folder of images"),
    help="Folder of the images [default: the one the run names].",
)
@click.option("--temperature/--no-temperature", default=True, show_default=True, help="Fit a temperature.")
@click.option("--guard/--no-guard", default=True, show_default=True, help="Fit an input guard.")
def calibrate(options: CalibrateOptions) -> None:
    """Fit the temperature and the input guard of RUN, write them into it, and say what they are worth.

    The temperature is fitted on the validation part; it changes the probabilities that are reported, and no
    mask. The guard is fitted on the statistics of the training images, and flags images that are unlike them;
    it is judged on the test part, and by folds of groups on all images. The next export of RUN has both
    (docs/evaluation.md).
    """
    if not (options.temperature or options.guard):
        raise InputError("--no-temperature and --no-guard leave nothing to do: leave one of them out")

    from tumorseg_train.evaluation.predictions import torch_infer  # torch comes with these
    from tumorseg_train.monitoring.calibrate import calibrate as fit
    from tumorseg_train.monitoring.calibrate import tables
    from tumorseg_train.networks.run import Run
    from tumorseg_train.report.tables import json_text

    run = Run.open(options.run)
    manifest = run.manifest()
    if options.data is not None:
        manifest = dataclasses.replace(manifest, root=options.data)
    infer = torch_infer(run.model(), run.contract)
    with options.progress("calibrating") as tell:
        values = fit(run, manifest, infer, temperature=options.temperature, guard=options.guard, tell=tell)
    if options.as_json:
        say_text(json_text(values), nl=False)
    else:
        say_text("\n".join(f"{each.title}\n{each.to_text()}" for each in tables(values)))
    done = []
    if values["temperature"]:
        done.append(f"temperature {values['temperature']['after']:g}")
    if values["guard"]:
        done.append(f"input guard of {', '.join(kind['name'] for kind in values['guard']['kinds'])}")
    options.verdict(f"{options.run}: {'; '.join(done)}; export it again")
