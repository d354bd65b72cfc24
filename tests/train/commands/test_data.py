from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.read import read_image, write_png
from tumorseg_train.commands.data import data
from tumorseg_train.data import phantoms
from tumorseg_train.data.phantoms import write_phantoms
from tumorseg_train.data.split import Manifest, make_manifest
from tumorseg_train.layouts.declaration import Declaration


def run(*arguments: object) -> Result:
    return CliRunner().invoke(data, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "phantoms"
    result = run("phantoms", root, "--brain", 4, "--breast", 6, "--seed", 2)
    assert result.exit_code == 0, result.output
    assert "drew 4 brain and 6 breast phantoms with seed 2" in result.output
    return root


def test_prepare_writes_the_split_and_a_table(drawn: Path, tmp_path: Path) -> None:
    result = run("prepare", drawn, "--seed", 3, "--out", tmp_path / "new" / "split.json")
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.output.splitlines()]
    assert ["brain", "tumour", "4", "4", "2", "1", "1"] in rows
    assert ["breast", "benign", "3", "3", "1", "1", "1"] in rows
    assert ["breast", "malignant", "2", "2", "2", "0", "0"] in rows
    assert ["breast", "normal", "1", "0", "1", "0", "0"] in rows
    assert ["all", "10", "9", "6", "2", "2"] in rows
    assert "phantoms: drawn images" in result.output
    written = Manifest.read(tmp_path / "new" / "split.json", drawn)
    assert written == make_manifest(drawn, 3)
    assert written.digest()[:12] in result.output


def test_prepare_as_json_with_the_split_in_the_folder(drawn: Path) -> None:
    (drawn / "notes").mkdir()
    result = run("prepare", drawn, "--json")
    (drawn / "notes").rmdir()
    report = json.loads(result.stdout)
    manifest = Manifest.read(drawn / "split.json", drawn)
    assert report["split"] == str(drawn / "split.json")
    assert report["split_sha256"] == manifest.digest()
    assert report["phantoms"] is True
    assert report["unread_folders"] == ["notes"]
    assert report["copies"] == []
    assert sum(row["test"] for row in report["counts"]) == len(manifest.part("test"))


def test_prepare_draws_phantoms_where_nothing_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phantoms, "write_phantoms", lambda to, tell: write_phantoms(to, brain=3, breast=3))
    result = run("prepare", tmp_path / "data", "--json", "--phantoms")
    assert result.exit_code == 0, result.output
    assert f"{tmp_path / 'data'} did not exist: phantoms were drawn" in result.stderr
    assert len(result.stderr.splitlines()) == 2  # and the verdict
    assert result.stderr.splitlines()[-1].startswith("6 phantoms, drawn images: all files are sound; split: ")
    assert sum(row["images"] for row in json.loads(result.stdout)["counts"]) == 6


def test_prepare_lists_all_problems_and_writes_nothing(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "data", brain=3, breast=0)
    for n in (1, 3):
        (tmp_path / "data" / "brain" / "masks" / f"{n}.png").unlink()
    result = run("prepare", tmp_path / "data")
    assert isinstance(result.exception, InputError)
    assert "2 problem(s) in 3 images" in str(result.exception)
    assert result.stderr.count("has no mask") == 2
    listed = json.loads(run("prepare", tmp_path / "data", "--json").stdout)
    assert [problem.split(":")[0] for problem in listed["problems"]] == [
        "brain/images/1.png",
        "brain/images/3.png",
    ]
    assert not (tmp_path / "data" / "split.json").exists()


def test_prepare_refuses_an_empty_folder(tmp_path: Path) -> None:
    result = run("prepare", tmp_path)
    assert isinstance(result.exception, InputError)
    assert "holds nothing, expected brain/images" in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_phantoms_refuses_a_folder_in_use(drawn: Path) -> None:
    before = sorted(drawn.rglob("*"))
    result = run("phantoms", drawn, "--brain", 1, "--breast", 1)
    assert isinstance(result.exception, InputError)
    assert "is not empty" in str(result.exception)
    assert sorted(drawn.rglob("*")) == before


@pytest.mark.parametrize("name", ["dta", "images"])
def test_a_mistyped_path_gets_no_phantoms(tmp_path: Path, name: str) -> None:
    result = run("prepare", tmp_path / name)
    assert isinstance(result.exception, InputError)
    assert "does not exist" in str(result.exception)
    assert str(result.exception).endswith("check the path, or draw phantoms into it by --phantoms")
    assert not list(tmp_path.iterdir())


def test_the_default_path_gets_phantoms_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(phantoms, "write_phantoms", lambda to, tell: write_phantoms(to, brain=3, breast=3))
    result = run("prepare", "data")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1].startswith("6 phantoms, drawn images: all files are sound; split: ")


def test_import_shows_three_pairs_asks_and_writes(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "data", brain=12, breast=0)
    scans = (tmp_path / "data" / "brain").rename(tmp_path / "scans")
    refused = run("import", scans)
    assert isinstance(refused.exception, InputError)
    assert "expected one: say what the images show by --organ NAME" in str(refused.exception)
    asked = run("import", scans, "--organ", "head")
    assert asked.exit_code == 1  # nothing was answered
    assert not (scans / "dataset.toml").exists()
    result = run("import", scans, "--organ", "head", "--yes")
    assert result.exit_code == 0, result.output
    assert result.output.count(" + masks/") == 3
    assert 'organ = "head"' in (scans / "dataset.toml").read_text()
    again = run("import", scans, "--organ", "head", "--yes")
    assert isinstance(again.exception, InputError)
    report = json.loads(run("prepare", scans, "--json").stdout)
    assert {row["organ"] for row in report["counts"]} == {"head"}
    with_flags = run("prepare", scans, "--organ", "neck")
    assert "declares the data, got also --organ" in str(with_flags.exception)


@pytest.mark.slow
def test_prepare_reads_what_flags_declare_and_the_split_keeps_the_colour(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "data", brain=12, breast=0)
    scans = (tmp_path / "data" / "brain").rename(tmp_path / "scans")
    for path in (scans / "masks").iterdir():
        mask = np.asarray(read_image(path) > 0)
        coloured = np.zeros((*mask.shape, 3), np.uint8)
        coloured[...] = (0, 0, 255)
        coloured[mask] = (255, 0, 0)
        write_png(path, coloured, durable=False)
    flags = ("--images", "images", "--masks", "masks", "--organ", "head")
    refused = run("prepare", scans, *flags)
    assert "expected black and one other: name the tumour's, such as --tumour '#ff0000'" in refused.stderr
    result = run("prepare", scans, *flags, "--tumour", "red")
    assert result.exit_code == 0, result.output
    manifest = Manifest.read(scans / "split.json", scans)
    assert {item.tumour for item in manifest.items} == {"red"}
    assert manifest == make_manifest(scans, declared=(
        Declaration(organ="head", images="images", masks="masks", tumour="red"),
    ))  # fmt: skip
    assert max(item.tumour_px / (item.height * item.width) for item in manifest.items) < 0.2
