"""`tumorseg doctor`: what this device can run, and why not the rest."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from tumorseg_runtime.cli.diagnostics import BACKEND, OK, WRONG, Finding, examine
from tumorseg_runtime.cli.options import Existing, Options, command, device_folder_option
from tumorseg_runtime.cli.terminal import say, say_text
from tumorseg_runtime.core.errors import CheckFailedError


@dataclasses.dataclass(frozen=True)
class DoctorOptions(Options):
    """Of `tumorseg doctor`."""

    bundle: Path | None
    device_folder: Path | None


@command(DoctorOptions, example="tumorseg doctor bundles/breast")
@click.argument("bundle", required=False, type=Existing("a bundle"))
@device_folder_option()
def doctor(options: DoctorOptions) -> None:
    """Tell what this machine can run, and the remedy for each thing missing.

    With BUNDLE also whether it is whole, and whether the engines and the ranking of this device still fit.
    What is missing may be missing on purpose; the exit status is 1 only where something is wrong.
    """
    findings = examine(options.bundle, options.device_folder)
    if options.as_json:
        say_text(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        width = max(len(finding.topic) for finding in findings)
        for finding in findings:
            remedy = f": {finding.remedy}" if finding.remedy else ""
            say(f"{finding.status:<8}{finding.topic:<{width}}  {finding.detail}{remedy}")
    wrong = [finding.topic for finding in findings if finding.status == WRONG]
    if wrong:
        raise CheckFailedError(f"to be put right: {', '.join(wrong)}: see above")
    options.verdict(can_run(findings))


def can_run(findings: list[Finding]) -> str:
    """One sentence: which backends can run here, and the way to more."""
    backends = [one for one in findings if one.topic.startswith(BACKEND)]
    ready = [one.topic.removeprefix(BACKEND) for one in backends if one.status == OK]
    if not ready:
        return "Nothing can run here yet: pip install 'tumorseg[cpu]' brings ONNX Runtime for the CPU."
    rest = len(backends) - len(ready)
    more = f"; {rest} more backends are missing, each with its remedy above" if rest else ""
    return f"Bundles can run here on {', '.join(ready)}, and nothing is wrong{more}."
