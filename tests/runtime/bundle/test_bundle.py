from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tumorseg_runtime.bundle.bundle import INDEX, Bundle
from tumorseg_runtime.core.errors import BundleError

Edit = Callable[[Path, Callable[[dict[str, Any]], None]], None]


@pytest.fixture
def copy(small_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_bundle, tmp_path / "copy"))


def test_an_untouched_bundle_opens_and_gives_the_same_index(small_bundle: Path) -> None:
    bundle = Bundle.open(small_bundle)
    assert bundle.problems() == []
    assert bundle.to_index() == (small_bundle / INDEX).read_text(encoding="utf-8")
    assert len(bundle.digest()) == 64
    assert bundle.artefact("onnx", "fp32").file == "model.onnx"


def test_a_copy_elsewhere_has_the_same_digest(small_bundle: Path, copy: Path) -> None:
    assert Bundle.open(copy).digest() == Bundle.open(small_bundle).digest()


def flip_a_bit(root: Path) -> None:
    data = bytearray((root / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (root / "model.onnx").write_bytes(bytes(data))


def cut(root: Path) -> None:
    (root / "model.onnx").write_bytes((root / "model.onnx").read_bytes()[:-1])


def link(root: Path) -> None:
    (root / "model.onnx").rename(root.parent / "elsewhere.onnx")
    (root / "model.onnx").symlink_to(root.parent / "elsewhere.onnx")


@pytest.mark.fault
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_bit, "model.onnx has the right size but other content"),
        (cut, "model.onnx has .* bytes, expected"),
        (link, "model.onnx cannot be used \\(it is a link\\)"),
        (lambda root: (root / "model.onnx").unlink(), "model.onnx is missing"),
        (lambda root: (root / "golden/x.png").write_bytes(b"x"), "golden/x.png does not belong to it"),
        (lambda root: (root / "model.trt").symlink_to(root / "model.onnx"), "model.trt does not belong"),
    ],
)
def test_damage_is_named(copy: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(copy)
    with pytest.raises(BundleError, match=message):
        Bundle.open(copy)


def test_an_artefact_or_golden_image_outside_the_seal_is_refused(copy: Path, edit_index: Edit) -> None:
    edit_index(copy, lambda values: values["artefacts"][0].update(file="../model.onnx"))
    with pytest.raises(BundleError, match=r"'\.\./model.onnx', expected a path inside its folder"):
        Bundle.open(copy)
    edit_index(copy, lambda values: values["artefacts"][0].update(file="other.onnx"))
    with pytest.raises(BundleError, match=r"other.onnx is an artefact without a seal"):
        Bundle.open(copy)
    edit_index(copy, lambda values: values["golden"].append("ghost"))
    with pytest.raises(BundleError, match=r"golden image ghost has no \.png under seal"):
        Bundle.open(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.update(schema=0),
        lambda values: values.pop("files"),
        lambda values: values.update(files=[]),
        lambda values: values["artefacts"][0].update(colour="red"),
        lambda values: values["contract"].update(height=500),
        lambda values: values.update(golden=None),
    ],
)
def test_a_wrong_index_is_a_bundle_error(
    copy: Path, edit_index: Edit, change: Callable[[dict[str, Any]], None]
) -> None:
    edit_index(copy, change)
    with pytest.raises(BundleError):
        Bundle.open(copy)


@pytest.mark.fault
def test_no_index_or_a_broken_one(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(
        BundleError, match=r"has no bundle\.json, expected a bundle made by `tumorseg export`"
    ):
        Bundle.open(tmp_path)
    with pytest.raises(BundleError, match="cannot be read"):
        Bundle.open(copy / "model.onnx")
    for text in ("{", "[]", "null", '{"schema": 1}'):
        (copy / INDEX).write_text(text)
        with pytest.raises(BundleError):
            Bundle.open(copy)


def test_an_artefact_that_is_not_there_is_named_with_those_that_are(small_bundle: Path) -> None:
    with pytest.raises(
        BundleError,
        match="has no fp16 onnx artefact, it has onnx fp32: take it by --precision fp32, or export",
    ):
        Bundle.open(small_bundle).artefact("onnx", "fp16")
