"""The page of a benchmark: one HTML file from bench.json and parity.json of one bundle, or of several.

python -m tumorseg_benchmarks.reports.html_report --out page.html unet/bench.json unet/parity.json
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tumorseg_benchmarks.reports.html_findings import (
    cold_section,
    parity_section,
    roofline_section,
    unverified_section,
    worst_cases,
)
from tumorseg_benchmarks.reports.html_sections import (
    choice_section,
    latency_section,
    machine_section,
    pareto_section,
    speed_section,
    stages_section,
)
from tumorseg_benchmarks.reports.html_verdict import artefact_table, banner, verdict
from tumorseg_benchmarks.reports.networks import NetworkReport
from tumorseg_benchmarks.reports.report import SCHEMA
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.cli.main import one_line_errors
from tumorseg_runtime.cli.terminal import say
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.files import make_folder, write_text
from tumorseg_runtime.core.records import Fields, Format, to_json
from tumorseg_train.report.case_view import Words
from tumorseg_train.report.page import page

PAGE = "bench.html"
KINDS = ("bench", "parity")
WORDS = Words(
    truth="PyTorch's mask",
    mask="artefact's mask",
    flips="flipped pixels, drawn larger",
    extra="only the artefact marks it",
    missed="only PyTorch marks it",
)
_FORMAT = Format("bench.json or parity.json", "measure again", error=InputError, max_bytes=2**28)
_FIELDS = Fields(schema=int, kind=str, bundle=Fields(name=str, sha256=str), rows=[dict[str, Any]])


def read_report(path: Path, kind: str | None = None, bundle: Bundle | None = None) -> dict[str, Any]:
    """The values of a bench.json or parity.json.

    Raises InputError for a file of another kind or schema, or of another bundle than the one named.
    """
    values = _FORMAT.read(path, _FIELDS)
    schema, got, sealed = values["schema"], values["kind"], values["bundle"]["sha256"]
    kinds = (kind,) if kind else KINDS
    if schema != SCHEMA or got not in kinds:
        raise InputError(
            f"{path}: is '{got}' of schema {schema}, expected {' or '.join(kinds)} of schema {SCHEMA}: "
            "measure again with this version of tumorseg"
        )
    if bundle is not None and sealed != bundle.digest():
        raise InputError(
            f"{path}: is of bundle {sealed[:12]}, expected {bundle.digest()[:12]}: check it again"
        )
    return dict(values)


def join(reports: Sequence[Mapping[str, Any]]) -> list[NetworkReport]:
    """Reports of the same bundle belong together; a bundle without bench.json has no place on the page.

    Bundles of one name are told apart by their SHA-256.
    Raises InputError for no bench.json, and for two of one bundle.
    """
    benches = [one for one in reports if one["kind"] == "bench"]
    if not benches:
        raise InputError("got no bench.json, expected one for each bundle on the page")
    seals = [str(one["bundle"]["sha256"]) for one in benches]
    names = [str(one["bundle"]["name"]) for one in benches]
    if len(set(seals)) != len(seals):
        raise InputError(f"got two bench.json of one bundle ({', '.join(names)}), expected one of each")
    networks = []
    for bench, name, seal in zip(benches, names, seals, strict=True):
        parity = [one for one in reports if one["kind"] == "parity" and one["bundle"]["sha256"] == seal]
        title = name if names.count(name) == 1 else f"{name} ({seal[:8]})"
        networks.append(NetworkReport(title, bench, parity[-1] if parity else None))
    return networks


def report_page(reports: Sequence[Mapping[str, Any]]) -> str:
    """The whole page as HTML, networks in the order of their bench.json."""
    networks = join(reports)
    several = len(networks) > 1
    folded = [("Dice against latency", pareto_section(networks))]
    for network in networks:
        after = f": {network.title}" if several else ""
        folded += [
            (f"Choice{after}", choice_section(network)),
            (f"Times faster than the reference{after}", speed_section(network)),
            (f"Latency{after}", latency_section(network)),
            (f"Stages{after}", stages_section(network)),
            (f"Start and memory{after}", cold_section(network)),
            (f"Roofline{after}", roofline_section(network)),
            (f"Parity{after}", parity_section(network)),
        ]
    folded += [
        ("What is unverified, and why", unverified_section(networks)),
        ("What was measured on what", machine_section(networks)),
    ]
    return page(
        "Benchmark",
        verdict(networks),
        artefact_table(networks),
        cases=[case for network in networks for case in worst_cases(network)],
        words=WORDS,
        folded=folded,
        banner=banner(networks),
        lead=networks[0].lead,
    )


def foreign_page(reports: Sequence[Mapping[str, Any]], sources: Sequence[Path]) -> str:
    """`report_page` of values that were read from files; raises InputError where one is damaged.

    The page reads hundreds of values; where one of them is not as the measurement wrote it, some operation
    on it fails.
    """
    try:
        return report_page(reports)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise InputError(
            f"{', '.join(map(str, sources))}: cannot be shown ({type(error).__name__}: {error}), expected "
            "the values that bench and parity of this version write: measure again"
        ) from error


def without_pictures(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a report with all but the pictures of its worst images."""
    worst = {
        name: {field: value for field, value in one.items() if field != "pictures"}
        for name, one in values.get("worst", {}).items()
    }
    return {**values, **({"worst": worst} if "worst" in values else {})}


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", default=Path(PAGE), show_default=True, type=click.Path(path_type=Path), help="The page."
)
@click.option(
    "--keep-json",
    is_flag=True,
    help="Also write each file beside the page, as BUNDLE.bench.json or BUNDLE.parity.json, compact and "
    "without the pictures, which are in the page.",
)
def main(files: tuple[Path, ...], out: Path, keep_json: bool) -> None:
    """Join bench.json and parity.json FILES, of one bundle or several, into one page."""
    with one_line_errors():
        reports = [read_report(file) for file in files]
        text = foreign_page(reports, files)
        make_folder(out.parent)
        write_text(out, text)
        kept = {f"{one['bundle']['name']}.{one['kind']}.json": one for one in reports if keep_json}
        if keep_json and len(kept) < len(reports):
            raise InputError(
                f"{len(reports)} files would become {len(kept)} ({', '.join(kept)}), expected one of each "
                "kind and bundle name: leave one out"
            )
        for name, values in kept.items():
            write_text(out.parent / name, to_json(without_pictures(values), indent=None))
    say(f"report: {out.resolve()}")


if __name__ == "__main__":
    main()
