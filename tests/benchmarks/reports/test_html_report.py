"""The page: reports of one bundle belong together, every section is there, and nothing odd breaks it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import click.testing
import pytest

from tumorseg_benchmarks.commands.bench import bench
from tumorseg_benchmarks.commands.parity import parity
from tumorseg_benchmarks.reports.html_report import join, main, read_report, report_page
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import InputError
from tumorseg_train.networks.run import Run

pytestmark = pytest.mark.slow
SECTIONS = (
    "Choice", "Times faster than the reference", "Latency", "Stages", "Start and memory", "Roofline",
    "Parity",
)  # fmt: skip


@pytest.fixture(scope="module")
def files(
    tiny_bundle: Bundle,
    tiny_run: Run,
    tmp_path_factory: pytest.TempPathFactory,
    conformance_cut_short: Callable[[], AbstractContextManager[None]],
) -> tuple[Path, Path]:
    """bench.json and parity.json of the tiny bundle."""
    pytest.importorskip("onnxruntime")
    out = tmp_path_factory.mktemp("reports")
    given = [str(tiny_bundle.root), "--run", str(tiny_run.root), "--out", str(out)]
    given += ["--device-folder", str(out / "device")]
    with conformance_cut_short():
        result = click.testing.CliRunner().invoke(parity, given)
    assert result.exit_code == 0, result.output
    given += ["--batches", "1", "--threads", "1", "--rounds", "8", "--no-cold", "--max-size-mb", "900"]
    result = click.testing.CliRunner().invoke(bench, [*given, "--parity", str(out / "parity.json")])
    assert result.exit_code == 0, result.output
    return out / "bench.json", out / "parity.json"


def other(values: dict[str, Any], name: str = "other", seal: str = "f" * 64) -> dict[str, Any]:
    """The report as if it were another bundle's."""
    return {**values, "bundle": {**values["bundle"], "name": name, "sha256": seal}}


def test_the_page_of_one_bundle_has_every_section_and_the_parity_file(files: tuple[Path, Path]) -> None:
    page = (files[0].parent / "bench.html").read_text()
    assert re.findall(r"<summary><h3>(.*?)</h3>", page) == [
        "Dice against latency", *SECTIONS, "What is unverified, and why", "What was measured on what",
    ]  # fmt: skip
    assert "<h1>Benchmark</h1>" in page, "no hashes in the title"
    assert re.search(r'class="verdict (passed|unverified)">.* serve ONNX FP', page)
    assert "No parity.json of this bundle was given" not in page
    assert "No Dice is known here" not in page
    assert "golden, batch 1" in page
    assert "Parity first, then budgets (size at most 900 MB)" in page
    assert page.count("data:image/") >= 8, "input, two masks and flips of both artefacts"


def test_several_bundles_share_a_page_and_each_keeps_its_own_parity(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    values = json.loads(files[0].read_text())
    (tmp_path / "second.json").write_text(json.dumps(other(values)))
    arguments = ["--keep-json", "--out", tmp_path / "a/page.html", *files, tmp_path / "second.json"]
    result = click.testing.CliRunner().invoke(main, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output
    page = (tmp_path / "a/page.html").read_text()
    for title in SECTIONS:
        for name in (values["bundle"]["name"], "other"):
            assert f"{title}: {name}</h3>" in page
    assert page.count("No parity.json of this bundle was given") == 1
    kept = {path.name: json.loads(path.read_text()) for path in (tmp_path / "a").glob("*.json")}
    name = values["bundle"]["name"]
    assert set(kept) == {f"{name}.bench.json", f"{name}.parity.json", "other.bench.json"}
    assert kept[f"{name}.bench.json"]["rows"] == values["rows"]
    worst = kept[f"{name}.bench.json"]["worst"].values()
    assert all("pictures" not in one and "flipped" in one for one in worst)
    of_kept = report_page(list(kept.values()))
    assert 'class="viewer"' not in of_kept
    assert "data:image/" not in of_kept
    (tmp_path / "second.json").write_text(json.dumps(other(values, name)))
    again = click.testing.CliRunner().invoke(main, [str(one) for one in arguments])
    assert again.exit_code != 0
    assert "expected one of each kind and bundle name" in again.output
    twins = join([values, other(values, values["bundle"]["name"])])
    assert [network.title[-11:] for network in twins] == [
        f" ({values['bundle']['sha256'][:8]})",
        " (ffffffff)",
    ]
    (tmp_path / "second.json").write_text(json.dumps(other(values)))
    networks = join([read_report(file) for file in (*files, tmp_path / "second.json")])
    assert [network.parity is None for network in networks] == [False, True]


def test_what_does_not_belong_on_the_page_is_refused(
    files: tuple[Path, Path], tiny_bundle: Bundle, tmp_path: Path
) -> None:
    measured, checked = (json.loads(file.read_text()) for file in files)
    broken = tmp_path / "broken.json"
    for text in ("", "[]", '{"schema": 1}', '{"schema": 1, "kind": "bench", "bundle": 3}'):
        broken.write_text(text)
        with pytest.raises(
            InputError, match=r"is no bench.json or parity.json: (cannot be read|is a list|lacks the field)"
        ):
            read_report(broken)
    broken.write_text(json.dumps({**measured, "schema": 9}))
    with pytest.raises(InputError, match="is 'bench' of schema 9, expected bench or parity of schema 2"):
        read_report(broken)
    with pytest.raises(InputError, match="is 'bench' of schema 2, expected parity"):
        read_report(files[0], "parity", tiny_bundle)
    broken.write_text(json.dumps(other(checked)))
    with pytest.raises(InputError, match="is of bundle ffffffffffff, expected"):
        read_report(broken, "parity", tiny_bundle)
    with pytest.raises(InputError, match=r"got no bench\.json"):
        join([checked])
    with pytest.raises(InputError, match=r"two bench\.json of one bundle"):
        join([measured, measured])


def test_an_artefact_whose_logits_are_not_finite_has_its_place(files: tuple[Path, Path]) -> None:
    values = json.loads(files[0].read_text())
    for row in values["rows"]:
        for image in (row["parity"] or {"images": []})["images"]:
            image.update(max_error=None, relative_error=None, dice=None)
    for one in values["worst"].values():
        one.update(max_error=None, dice=None)
    page = report_page([values])
    assert "largest logit error not finite" in page


def test_a_busy_machine_has_a_red_banner_and_no_green_verdict(files: tuple[Path, Path]) -> None:
    values = json.loads(files[0].read_text())
    values["load_average"]["before"][0] = 0.1
    quiet = report_page([values])
    assert 'class="banner"' not in quiet
    assert 'class="verdict passed"' in quiet
    values["load_average"]["before"][0] = 3.2
    busy = report_page([values])
    assert "the load was 3.2 before the start, expected at most 0.5" in busy
    assert 'class="verdict unverified"' in busy


def test_refused_unverified_and_passed_are_three_things(files: tuple[Path, Path]) -> None:
    values = json.loads(files[0].read_text())
    for row in values["rows"]:
        if row["label"].startswith("ONNX FP16"):
            row.update(status="refused: parity", reason="too many flips")
    values["choice"] = [{**one, "status": "unfit"} for one in values["choice"]]
    page = report_page([values])
    table = page[page.index("<table") : page.index("</table>")]
    assert {state: f'class="badge {state}"' in table for state in ("passed", "refused", "unverified")} == {
        "passed": True, "refused": True, "unverified": True,
    }  # fmt: skip
    assert 'class="verdict refused"' in page
    assert "nothing may serve" in page
