"""What `tumorseg calibrate` adds to a run: the contract's temperature and an input guard, with figures."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
from typing import Any

from tumorseg_runtime.core.files import write_text
from tumorseg_runtime.core.progress import Tell, part, silent
from tumorseg_runtime.processing.input_guard import FILE
from tumorseg_train.data.split import Manifest
from tumorseg_train.evaluation.predictions import Infer
from tumorseg_train.monitoring.guard_trial import OWN, measure_all, trial
from tumorseg_train.monitoring.temperature import collect, fit_temperature
from tumorseg_train.networks.run import Run
from tumorseg_train.report.tables import Table

SCHEMA = 1
PARTS = ("val", "test")


def calibrate(
    run: Run, manifest: Manifest, infer: Infer, *, temperature: bool, guard: bool, tell: Tell = silent
) -> dict[str, Any]:
    """Fit what is asked for, write it into the run, and return the values of `calibrate --json`.

    infer: the run's network. Raises InputError where the data are not enough, and then writes nothing.
    """
    values: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "calibration",
        "tumorseg": importlib.metadata.version("tumorseg"),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "run": str(run.root),
        "temperature": None,
        "guard": None,
    }
    steps = 2 * temperature + guard
    fitted = None
    if guard:
        digest = run.data["split_sha256"]
        measured = measure_all(manifest, part(tell, 0, steps))
        training = [row for row, item in enumerate(measured.items) if item.part == "train"]
        fitted = measured.guard(training, digest)
        values["guard"] = {
            "kinds": [{"name": one.name, "images": one.images, "limit": one.limit} for one in fitted.kinds],
            "trial": trial(measured, digest),
        }
    if temperature:
        parts = {
            name: collect(infer, manifest, run.contract, name, part(tell, guard + number, steps))
            for number, name in enumerate(PARTS)
        }
        best = fit_temperature(parts["val"])
        values["temperature"] = {
            "before": 1.0,
            "after": best,
            "parts": {
                name: {
                    "images": len(found.groups),
                    "before": found.figures(1.0),
                    "after": found.figures(best),
                }
                for name, found in parts.items()
            },
        }
        run.metrics["temperature"] = values["temperature"]
        run = dataclasses.replace(run, contract=dataclasses.replace(run.contract, temperature=best))
        run.write()
    if fitted is not None:
        write_text(run.root / FILE, fitted.to_text())
    return values


def tables(values: dict[str, Any]) -> list[Table]:
    """For people."""
    found = []
    if temperature := values["temperature"]:
        found.append(
            Table(
                ("part", "pixels", "temperature>", "ECE>", "Brier>", "loss>"),
                tuple(
                    _calibration_row(part, of, temperature[when], figures[when][of])
                    for part, figures in temperature["parts"].items()
                    for of in ("all", "near")
                    for when in ("before", "after")
                ),
                "Temperature, fitted on the validation part; masks are the same",
            )
        )
    if guard := values["guard"]:
        found.append(
            Table(
                ("guard of", "judged on", "shown", "images>", "flagged>", "share>", ""),
                tuple(map(_guard_row, guard["trial"])),
                "Input guard",
            )
        )
    return found


def _calibration_row(part: str, of: str, temperature: float, figures: dict[str, Any]) -> tuple[str, ...]:
    ece = figures["ece"]
    interval = "" if ece["low"] is None else f" ({_cell(ece['low'])} to {_cell(ece['high'])})"
    return (
        part,
        "all" if of == "all" else "near the tumour",
        f"{temperature:.4g}",
        _cell(ece["value"]) + interval,
        _cell(figures["brier"]),
        _cell(figures["loss"]),
    )


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _guard_row(row: dict[str, Any]) -> tuple[str, ...]:
    own = row["shown"] == OWN
    return (
        row["guard"],
        "test part" if row["judged"] == "test" else "folds of groups",
        "its own kind" if own else row["shown"],
        str(row["images"]),
        str(row["flagged"]),
        f"{100 * row['flagged'] / row['images']:.1f} %",
        f"false alarms, at most {100 * row['at_most']:.1f} % with 95 % confidence" if own else "",
    )
