"""The flags that declare a dataset, in place of a `dataset.toml`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tumorseg_runtime.cli.options import Options
from tumorseg_runtime.core.errors import InputError
from tumorseg_train.layouts.declaration import FILE, Declaration, declare

FIELDS = ("organ", "images", "masks", "pairing", "tumour", "soft_threshold", "label", "patient")


@dataclass(frozen=True, kw_only=True)
class DatasetOptions(Options):
    """What the flags declare; None: not given."""

    organ: str | None
    images: str | None
    masks: str | None
    pairing: str | None
    tumour: str | None
    soft_threshold: int | None
    label: str | None
    patient: str | None

    def given(self) -> dict[str, Any]:
        """The fields of a declaration that were given."""
        return {name: value for name in FIELDS if (value := getattr(self, name)) is not None}

    def declared(self, root: Path) -> tuple[Declaration, ...]:
        """The one dataset that the flags declare; none without flags. Raises InputError."""
        values = self.given()
        if not values:
            return ()
        if (root / FILE).is_file():
            raise InputError(
                f"{root / FILE} declares the data, got also --{', --'.join(values).replace('_', '-')}: "
                "change the file, or leave them out"
            )
        if missing := [name for name in ("organ", "images", "masks") if name not in values]:
            raise InputError(
                f"{root}: got --{', --'.join(values).replace('_', '-')}, expected also --"
                f"{' and --'.join(missing)}: add them, or let `tumorseg data import {root}` find them"
            )
        return (declare(values, root),)


def dataset_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of `DatasetOptions`."""
    options = (
        click.option("--organ", metavar="NAME", help="What the images show; any name."),
        click.option("--images", metavar="FOLDER", help="Folder in DIR; * for any one name: '*/images'."),
        click.option("--masks", metavar="FOLDER", help="The same for masks; it may be the images' folder."),
        click.option(
            "--pairing", metavar="IMAGE=MASK",
            help="Names without suffix: * any text, # a number, the same in both: '*=*_seg'.  [default: *=*]",
        ),
        click.option(
            "--tumour", metavar="COLOUR",
            help="In the masks: '#ff0000' or red, a gray value, several with commas, or any (all but black). "
            " [default: the one beside black]",
        ),
        click.option(
            "--soft-threshold", type=click.IntRange(1, 255), metavar="1..255",
            help="For masks with soft edges: tumour from this value on.",
        ),
        click.option(
            "--label", metavar="CLASS", help="The class: a name, `folder`, or a pattern such as '* (#)'."
        ),
        click.option("--patient", metavar="PATTERN", help="The patient: `folder`, or a pattern: '*_#'."),
    )  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function
