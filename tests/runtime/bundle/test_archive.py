"""A bundle as one file: the same bytes each time, and nothing unpacked that the seal does not know."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from tumorseg_runtime.bundle.archive import pack, unpack
from tumorseg_runtime.bundle.bundle import Bundle, sha256_of
from tumorseg_runtime.cli.bundle_archive import bundle
from tumorseg_runtime.core.errors import BundleError, InputError


@pytest.fixture
def archive(small_bundle: Path, tmp_path: Path) -> Path:
    pack(small_bundle, tmp_path / "bundle.zip")
    return tmp_path / "bundle.zip"


def test_the_same_bundle_gives_the_same_bytes_and_comes_back(
    small_bundle: Path, archive: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(small_bundle, copy)
    for path in copy.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o755)
    (copy / "bundle.json.sig").write_text("a signature")
    pack(copy, tmp_path / "signed.zip")
    (copy / "bundle.json.sig").unlink()
    assert pack(copy, tmp_path / "again.zip") == sha256_of(archive)
    again = unpack(archive, tmp_path / "new" / "bundle", sha256_of(archive).upper())
    assert again.digest() == Bundle.open(small_bundle).digest()
    assert not (again.root / "bundle.json.sig").exists()
    assert (unpack(tmp_path / "signed.zip", tmp_path / "signed").root / "bundle.json.sig").read_text()


def refused(archive: Path, message: str, sha256: str | None = None) -> None:
    out = archive.parent / "out"
    with pytest.raises(BundleError, match=message):
        unpack(archive, out, sha256)
    assert not out.exists()
    assert not list(archive.parent.glob(".out*"))


def add(archive: Path, name: str, data: bytes = b"x", mode: int = 0o100644) -> None:
    with zipfile.ZipFile(archive, "a") as file:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        file.writestr(entry, data)


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "extra.txt", "..\\evil", "folder/"])
def test_nothing_that_the_seal_does_not_know_is_written(archive: Path, name: str) -> None:
    add(archive, name)
    refused(archive, "which its seal does not know")
    assert not (archive.parent / "evil").exists()


def test_an_index_that_seals_a_path_outside_is_refused(small_bundle: Path, tmp_path: Path) -> None:
    index = json.loads((small_bundle / "bundle.json").read_text(encoding="utf-8"))
    index["files"]["../evil"] = {"sha256": "0" * 64, "bytes": 1}
    archive = tmp_path / "bad.zip"
    add(archive, "bundle.json", json.dumps(index).encode())
    add(archive, "../evil")
    refused(archive, "expected a path inside its folder")
    assert not (tmp_path / "evil").exists()


def test_a_link_is_written_as_a_file_and_fails_its_hash(archive: Path, tmp_path: Path) -> None:
    changed = tmp_path / "link.zip"
    with zipfile.ZipFile(archive) as old:
        for name in old.namelist():
            is_model = name == "model.onnx"
            add(
                changed,
                name,
                b"/etc/passwd" if is_model else old.read(name),
                0o120777 if is_model else 0o100644,
            )
    refused(changed, "model.onnx has 11 bytes, expected")


def test_what_is_compressed_is_refused(archive: Path) -> None:
    bomb = archive.with_name("bomb.zip")
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    refused(bomb, "is compressed, expected it stored")


def test_damage_another_hash_and_what_is_no_archive_are_refused(archive: Path) -> None:
    refused(archive, f"has SHA-256 {sha256_of(archive)}, expected 00", "0" * 64)
    add(archive, "bundle.json.sig", bytes(2**17))
    refused(archive, "bundle.json.sig has 131072 bytes, expected at most 64")
    data = bytearray(archive.read_bytes())
    data[len(data) // 3] ^= 1
    archive.write_bytes(data)
    refused(archive, "fetch it again|expected|as it was sealed")
    archive.write_bytes(b"no zip")
    refused(archive, "is no zip of `tumorseg bundle pack`")


def test_a_folder_that_holds_something_is_left_alone(archive: Path, small_bundle: Path) -> None:
    with pytest.raises(InputError, match="exists, expected a new or empty folder"):
        unpack(archive, archive.parent)
    with pytest.raises(InputError, match="lies in the bundle"):
        pack(small_bundle, small_bundle / "bundle.zip")


def test_commands(small_bundle: Path, tmp_path: Path) -> None:
    archive, out = tmp_path / "b.zip", tmp_path / "b"
    done = CliRunner().invoke(bundle, ["pack", str(small_bundle), "--out", str(archive), "--json"])
    digest = json.loads(done.stdout)["archive_sha256"]
    assert digest == sha256_of(archive)
    done = CliRunner().invoke(
        bundle, ["unpack", str(archive), "--out", str(out), "--sha256", digest, "--quiet"]
    )
    assert done.exit_code == 0
    assert done.stdout.rstrip().endswith("every file is as it was sealed")


def test_a_folder_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\), expected a file of"):
        unpack(tmp_path, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []
