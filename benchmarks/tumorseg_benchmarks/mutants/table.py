"""The tables and the JSON of a trial."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tumorseg_benchmarks.mutants.by_command import COMMANDS
from tumorseg_benchmarks.mutants.mutant import Mutant
from tumorseg_benchmarks.mutants.testbed import CONTRACT, ENCODER, TestBed
from tumorseg_benchmarks.mutants.third_party_criteria import CRITERIA
from tumorseg_benchmarks.mutants.trial import OURS, ControlResult, MutantResult
from tumorseg_runtime.parity.budget import BUDGETS
from tumorseg_train.report.tables import Table

KILLED, LIVES, BLIND = "killed", "lives", "blind"
NAMES = (OURS, *(criterion.name for criterion in CRITERIA))
SHOWN = 3  # findings of a mutant in the JSON


def verdict(result: MutantResult, name: str) -> str:
    """'killed', 'lives', or 'blind' where the criterion looks at a file that is as it should be."""
    if name == OURS:
        return KILLED if result.findings else LIVES
    if not result.seen:
        return BLIND
    return KILLED if result.third_party[name] else LIVES


def label(mutant: Mutant) -> str:
    """Its name, with a star where it was written after the budgets were frozen."""
    return f"{mutant.name} *" if mutant.late else mutant.name


def mutants_table(results: Sequence[MutantResult]) -> Table:
    """A row for each mutant: what each command says, and the verdict of each criterion."""
    rows = tuple(
        (
            label(result.mutant),
            result.mutant.kind,
            *("refused" if name in result.levels else "-" for name in COMMANDS),
            *(verdict(result, name) for name in NAMES[1:]),
        )
        for result in results
    )
    return Table(("bug", "kind", *COMMANDS, *NAMES[1:]), rows)


def commands_table(results: Sequence[MutantResult]) -> Table:
    """A row for each kind: how many mutants each command refuses."""
    kinds = dict.fromkeys(result.mutant.kind for result in results)
    groups = {kind: [one for one in results if one.mutant.kind == kind] for kind in kinds}
    rows = tuple(
        (kind, str(len(found)), *(str(sum(name in one.levels for one in found)) for name in COMMANDS))
        for kind, found in {**groups, "all": list(results)}.items()
    )
    return Table(("kind", "mutants>", *(f"{name}>" for name in COMMANDS)), rows)


def beyond_table(results: Sequence[MutantResult]) -> Table:
    """A row for each mutant that `verify` cannot see: why."""
    rows = tuple((one.mutant.name, one.mutant.beyond) for one in results if one.mutant.beyond)
    return Table(("bug", "why no finite set of images on a device shows it"), rows)


def summary_table(mutants: Sequence[MutantResult], controls: Sequence[ControlResult]) -> Table:
    """A row for each criterion: what it killed, what it cannot see, and its false alarms."""
    rows = []
    for name in NAMES:
        verdicts = [verdict(result, name) for result in mutants]
        alarms = sum(bool(result.alarms[name]) for result in controls)
        rows.append(
            (
                "ours" if name == OURS else name,
                f"{verdicts.count(KILLED)} of {len(mutants)}",
                str(verdicts.count(LIVES)),
                str(verdicts.count(BLIND)),
                f"{alarms} of {len(controls)}",
            )
        )
    return Table(("criterion", "killed>", "lives>", "cannot see>", "false alarms>"), tuple(rows))


def alarms_table(controls: Sequence[ControlResult]) -> Table:
    """A row for each backend and precision: forms, and the false alarms of each criterion."""
    groups: dict[tuple[str, str], list[ControlResult]] = {}
    for result in controls:
        groups.setdefault((result.control.backend, result.control.precision), []).append(result)
    rows = tuple(
        (
            backend,
            precision,
            str(len(found)),
            *(str(sum(bool(one.alarms[name]) for one in found)) for name in NAMES),
        )
        for (backend, precision), found in groups.items()
    )
    titles = tuple(f"{name}>" for name in ("ours", *NAMES[1:]))
    return Table(("backend", "precision", "forms>", *titles), rows)


def equivalent_table(results: Sequence[MutantResult]) -> Table:
    """A row for each change that no input can show: its proof, and whether it was accepted."""
    rows = tuple(
        (result.mutant.name, result.mutant.proof, "refused" if result.findings else "accepted")
        for result in results
    )
    return Table(("change", "why no input can show it", "our gate"), rows)


def network_facts(test_bed: TestBed) -> list[dict[str, Any]]:
    """The networks of the test bed, for `mutants.json`."""
    return [
        {
            "name": network.name,
            "encoder": ENCODER,
            "height": CONTRACT.height,
            "width": CONTRACT.width,
            "checkpoint_sha256": network.run.checkpoint_sha256,
            "refused": network.refused,
        }
        for network in test_bed.networks.values()
    ]


def to_values(
    networks: Sequence[dict[str, Any]],
    mutants: Sequence[MutantResult],
    equivalent: Sequence[MutantResult],
    controls: Sequence[ControlResult],
) -> dict[str, Any]:
    """The part of `mutants.json` that is the trial's (docs/mutants.md)."""
    return {
        "networks": list(networks),
        "budgets": {name: dataclasses.asdict(budget) for name, budget in BUDGETS.items()},
        "criteria": [{"name": one.name, "source": one.source} for one in CRITERIA],
        "mutants": [_mutant_values(result) for result in mutants],
        "equivalent": [{**_mutant_values(result), "proof": result.mutant.proof} for result in equivalent],
        "negative_controls": [
            {**dataclasses.asdict(result.control), "alarms": result.alarms} for result in controls
        ],
    }


def _mutant_values(result: MutantResult) -> dict[str, Any]:
    mutant = result.mutant
    return {
        "name": mutant.name,
        "kind": mutant.kind,
        "network": mutant.network,
        "late": mutant.late,
        "verdicts": {name: verdict(result, name) for name in NAMES},
        "refused_by": list(result.levels),
        "beyond": mutant.beyond,
        "findings": [dataclasses.asdict(finding) for finding in result.findings[:SHOWN]],
        "reasons": result.third_party,
    }


def to_markdown(
    mutants: Sequence[MutantResult],
    equivalent: Sequence[MutantResult],
    controls: Sequence[ControlResult],
    values: Mapping[str, Any],
) -> str:
    """The report: what docs/mutants.md shows."""
    machine = values["machine"]
    spent = f"{values['seconds']:.0f} s, {values['cpu_seconds']:.0f} s of the CPU"
    parts = [
        "# Mutants",
        f"{machine['cpu']}, {machine['date']}, {spent}.",
        summary_table(mutants, controls).to_markdown().rstrip(),
        "## By command",
        commands_table(mutants).to_markdown().rstrip(),
        "## Beyond what a device can see",
        beyond_table(mutants).to_markdown().rstrip(),
        "## Bugs",
        mutants_table(mutants).to_markdown().rstrip(),
        "## Changes that no input can show",
        equivalent_table(equivalent).to_markdown().rstrip(),
        "## Correct artefacts",
        alarms_table(controls).to_markdown().rstrip(),
        *(
            f"Not among them, since the exporter refused the {network['name']} under {backend}: {reason}."
            for network in values["networks"]
            for backend, reason in network["refused"].items()
        ),
        "## Sources of the criteria",
        "\n".join(f"- **{one.name}**: {one.source}" for one in CRITERIA),
    ]
    return "\n\n".join(parts) + "\n"
