"""`tumorseg doctor`: what this device can run, and why not the rest."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from tumorseg_runtime.cli.diagnostics import WRONG, examine
from tumorseg_runtime.core.errors import CheckFailedError


@click.command()
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option("--device-folder", type=click.Path(path_type=Path), help="Where engines built here lie.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(bundle: Path | None, device_folder: Path | None, as_json: bool) -> None:
    """Tell what this machine can run, and the remedy for each thing missing.

    With BUNDLE also whether it is whole, and whether the engines and the ranking of this device still fit.
    What is missing may be missing on purpose; the exit status is 1 only where something is wrong.
    """
    findings = examine(bundle, device_folder)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        width = max(len(finding.topic) for finding in findings)
        for finding in findings:
            remedy = f": {finding.remedy}" if finding.remedy else ""
            click.echo(f"{finding.status:<8}{finding.topic:<{width}}  {finding.detail}{remedy}")
    wrong = [finding.topic for finding in findings if finding.status == WRONG]
    if wrong:
        raise CheckFailedError(f"to be put right: {', '.join(wrong)}: see above")
