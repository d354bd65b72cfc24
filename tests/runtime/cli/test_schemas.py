"""docs/schemas: what the commands print with --json, and the results that are kept, validate.

The check knows the few keywords that the schemas use; a keyword that it does not know fails.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

from tumorseg_export.commands.sign import sign
from tumorseg_runtime.cli.bundle_archive import bundle
from tumorseg_runtime.cli.doctor import doctor
from tumorseg_runtime.cli.predict import predict
from tumorseg_runtime.cli.store import install, rollback
from tumorseg_runtime.cli.verify import verify
from tumorseg_runtime.images.read import write_png
from tumorseg_train.commands.data import data
from tumorseg_train.commands.demo import demo
from tumorseg_train.networks.run import Run

ROOT = Path(__file__).parents[3]
SCHEMAS = ROOT / "docs" / "schemas"
TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "integer": (int,), "number": (int, float),
    "boolean": (bool,), "null": (type(None),),
}  # fmt: skip


def faults(value: Any, schema: dict[str, Any], where: str = "$") -> list[str]:
    """What in `value` the schema does not allow."""
    found: list[str] = []
    for keyword, wanted in schema.items():
        match keyword:
            case "$schema" | "title":
                pass
            case "type":
                names = wanted if isinstance(wanted, list) else [wanted]
                kinds = tuple(kind for name in names for kind in TYPES[name])
                if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                    return [f"{where} is {value!r}, expected {wanted}"]
            case "enum":
                found += [] if value in wanted else [f"{where} is {value!r}, expected one of {wanted}"]
            case "pattern":
                found += [] if re.search(wanted, value) else [f"{where} is {value!r}, expected {wanted}"]
            case "required":
                found += [f"{where} has no {name}" for name in wanted if name not in value]
            case "properties":
                for name in wanted.keys() & (value or {}).keys():
                    found += faults(value[name], wanted[name], f"{where}.{name}")
            case "items":
                for index, item in enumerate(value or []):
                    found += faults(item, wanted, f"{where}[{index}]")
            case "oneOf":
                if sum(not faults(value, one, where) for one in wanted) != 1:
                    found.append(f"{where} fits not exactly one of {len(wanted)} forms")
            case _:
                raise AssertionError(f"{keyword} is a keyword that this check does not know")
    return found


def schema(name: str) -> dict[str, Any]:
    """A file of docs/schemas."""
    return dict(json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8")))


def test_the_check_finds_faults() -> None:
    right = {"archive": "b.zip", "archive_sha256": "0" * 64, "bytes": 5}
    assert not faults(right, schema("bundle-pack"))
    assert faults({**right, "bytes": "5"}, schema("bundle-pack"))
    assert faults({**right, "bytes": True}, schema("bundle-pack"))
    assert faults({**right, "archive_sha256": "0"}, schema("bundle-pack"))
    assert faults({"archive": "b.zip"}, schema("bundle-pack"))


@pytest.mark.slow
@pytest.mark.usefixtures("few_conformance_files")
def test_what_commands_print_is_what_the_schemas_say(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_png("a.png", np.random.default_rng(0).integers(0, 256, (50, 60), np.uint8))
    Path("bad.png").write_bytes(b"x")
    made = str(small_bundle)
    commands: list[tuple[str, click.Command, list[str]]] = [
        ("doctor", doctor, [made]),
        ("verify", verify, [made, "--backend", "onnxruntime"]),
        ("bundle-pack", bundle, ["pack", made, "--out", "b.zip"]),
        ("bundle-unpack", bundle, ["unpack", "b.zip", "--out", "b"]),
        ("install", install, ["store", made]),
        ("demo", demo, ["--bundle", made]),
        ("data-phantoms", data, ["phantoms", "d", "--brain", "6", "--breast", "6"]),
        ("data-import", data, ["import", "d", "--yes"]),
        ("data-prepare", data, ["prepare", "d"]),
        ("data-audit", data, ["audit", "d", "--split", "d/split.json"]),
        ("predict", predict, [made, "a.png", "bad.png", "--out", "o"]),
        ("sign", sign, ["--new-key", "k.pem"]),
        ("sign", sign, ["b", "--key", "k.pem"]),
    ]
    for name, command, given in commands:
        result = CliRunner().invoke(command, [*given, "--json"])
        assert faults(json.loads(result.stdout), schema(name)) == [], (name, given)
    assert rollback.params[-2].opts == ["--json"]  # it prints what install prints


@pytest.mark.parametrize(("kind", "pattern"), [("bench", "*.bench.json"), ("parity", "*.parity.json")])
def test_kept_results_validate(kind: str, pattern: str) -> None:
    paths = sorted((ROOT / "docs/results").glob(pattern))
    assert paths
    for path in paths:
        assert faults(json.loads(path.read_text(encoding="utf-8")), schema(kind)) == [], path


def test_a_kept_evaluation_validates() -> None:
    text = (ROOT / "docs/results/unetplusplus-lite0-256.json").read_text(encoding="utf-8")
    assert faults(json.loads(text), schema("evaluate")) == []


def test_docs_name_every_schema() -> None:
    page = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    for path in SCHEMAS.glob("*.json"):
        assert f"schemas/{path.name}" in page, path.name


def test_a_kept_comparison_validates() -> None:
    text = (ROOT / "docs/results/cpu-128/comparison.json").read_text(encoding="utf-8")
    assert faults(json.loads(text), schema("compare")) == []


def test_a_run_validates(tiny_run: Run) -> None:
    text = (tiny_run.root / "run.json").read_text(encoding="utf-8")
    assert faults(json.loads(text), schema("train")) == []


def test_every_command_with_json_has_a_schema_in_the_docs() -> None:
    listed = set(
        re.findall(r"schemas/([a-z-]+)\.schema\.json", (ROOT / "docs/cli.md").read_text(encoding="utf-8"))
    )
    assert listed == {path.name.removesuffix(".schema.json") for path in SCHEMAS.glob("*.schema.json")}
