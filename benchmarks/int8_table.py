"""The table of INT8 from bundles: `python benchmarks/int8_table.py BUNDLE...` prints Markdown.

All figures are those that the export judged by: `model.int8` of `bundle.json` and the certificates.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tumorseg_export.targets.validate_parity import FOLDER
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.parity.margin import CERTIFICATE

HEAD = "| network | file | multiplications in INT8 | kept | size | Dice, INT8 over PyTorch "
HEAD += "| images, groups, least | lesions that appeared or vanished | time over FP32 | FP32, ms |"


def rows(bundle: Bundle) -> list[str]:
    """A line for each INT8 artefact."""
    lines, facts = [], bundle.model["int8"]
    fp32 = bundle.files[bundle.artefact("onnx", "fp32").file].bytes
    for artefact in bundle.artefacts:
        if artefact.precision != "int8":
            continue
        values = CERTIFICATE.read(bundle.root / FOLDER / f"{artefact.file}.json", dict)
        report = values["reports"][-1]
        task, time = report["task"], report["time"]
        events = sum(len(image["decisions"]["events"]) for image in report["images"])
        beyond = sum(e["outside"] for image in report["images"] for e in image["decisions"]["events"])
        size = sum(bundle.files[name].bytes for name in artefact.files) / fp32
        lines.append(
            f"| {bundle.name} | {artefact.file} | {facts['multiplications']:.2%} | {len(facts['kept'])} "
            f"| {size:.3f} | {task['ratio']:.5f} ({task['low']:.5f}-{task['high']:.5f}) "
            f"| {task['images']}, {task['groups']}, {task['least']} "
            f"| {events}, {beyond} pixels beyond the band "
            f"| {time['ratio']:.3f} ({time['low']:.3f}-{time['high']:.3f}) "
            f"| {1e3 * sorted(time['fp32'])[len(time['fp32']) // 2]:.0f} |"
        )
    return lines


if __name__ == "__main__":
    click.echo(HEAD + "\n" + "|---" * (HEAD.count("|") - 1) + "|")
    for root in sys.argv[1:]:
        click.echo("\n".join(rows(Bundle.open(Path(root)))))
