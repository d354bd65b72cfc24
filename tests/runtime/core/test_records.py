"""Every fault of a file is one of our errors in one line."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from tumorseg_runtime.bundle.bundle import INDEX, Bundle
from tumorseg_runtime.core.errors import InputError, TumorsegError
from tumorseg_runtime.core.records import Fields, Format, Range, to_json
from tumorseg_runtime.deployment.store import ACTIVE, read_active
from tumorseg_runtime.device.cache import RANKING, Entry, read_ranking, write_ranking
from tumorseg_runtime.device.engines import EngineKey, Profile, read_key, record_of, write_engine

pytestmark = pytest.mark.fault


@dataclasses.dataclass(frozen=True)
class Inner:
    size: Annotated[int, Range(1, 8)]
    kind: Literal["a", "b"]


@dataclasses.dataclass(frozen=True)
class Outer:
    name: str
    inner: tuple[Inner, ...]
    share: float | None
    more: dict[str, int]


FORMAT = Format("thing", "make it again", 3, error=InputError, max_bytes=1000)
GOOD: dict[str, Any] = {"name": "x", "inner": [{"size": 2, "kind": "a"}], "share": 1, "more": {"n": 1}}


def test_a_record_is_read_as_its_class(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(to_json({"schema": 3, **GOOD}))
    assert FORMAT.read_record(tmp_path / "x.json", Outer) == Outer("x", (Inner(2, "a"),), 1, {"n": 1})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("[]", "is a list of 0, expected an object"),
        ("null", "is null, expected an object"),
        ("[" * 900, "cannot be read"),
        ("[" * 100 + "]" * 100, "nested deeper than 64 levels"),
        ('{"schema": 3, "schema": 3}', "has the name 'schema' twice"),
        ('{"schema": NaN}', "has the value NaN"),
        ('{"schema": 1e999}', "beyond what a float can hold"),
        ('{"schema": true}', "schema is true, expected 3: make it again"),
        ('{"schema": 4}', "schema is 4, expected 3: make it again"),
        (" " * 1001, "has more than the 1000 bytes"),
        (to_json({"schema": 3, **GOOD, "name": 1}), "name is 1, expected text"),
        (to_json({"schema": 3, **GOOD, "a\nb": 1}), r"unknown field 'a\\nb'"),
        (
            to_json({"schema": 3, **GOOD, "inner": [{"size": 9, "kind": "a"}]}),
            r"inner\[0\].size is 9, expected",
        ),
        (
            to_json({"schema": 3, **GOOD, "inner": [{"size": "2", "kind": "a"}]}),
            "is '2', expected an integer",
        ),
        (to_json({"schema": 3, **GOOD, "inner": [{"size": 2, "kind": "c"}]}), "is 'c', expected 'a' or 'b'"),
        (to_json({"schema": 3, **GOOD, "more": {"n": None}}), "more.n is null, expected an integer"),
        (to_json({"schema": 3, "name": "x"}), "lacks the field inner"),
    ],
)
def test_faults_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        FORMAT.read_record(tmp_path / "x.json", Outer)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "x.json"))


def test_bytes_that_are_not_utf8_and_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b'"\xff"')
    for path, message in (
        (tmp_path / "x.json", "not UTF-8"),
        (tmp_path, "directory"),
        (tmp_path / "y", "missing"),
    ):
        with pytest.raises(InputError, match=message):
            FORMAT.read(path)


def test_fields_leave_what_they_do_not_name(tmp_path: Path) -> None:
    assert Format("x", "y").parse('{"a": [1], "b": 2}', "x", Fields(a=[int])) == {"a": [1], "b": 2}


KEY = EngineKey("0" * 64, None, "fp32", "tensorrt", "10", (87,), None, Profile(1, 1, 4), None)
Reader = Callable[[], object]


def _strings(value: Any) -> Any:
    """The value with all its numbers as text."""
    if isinstance(value, dict):
        return {name: _strings(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_strings(one) for one in value]
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


@pytest.fixture(params=["bundle", "store", "ranking", "engine"])
def reader(
    request: pytest.FixtureRequest, make_bundle: Callable[..., Path], tmp_path: Path
) -> tuple[Path, Reader]:
    """A good file, and what reads it."""
    root = make_bundle(tmp_path / "bundle")
    bundle = Bundle.open(root)
    if request.param == "bundle":
        return root / INDEX, lambda: Bundle.read_index(root)
    if request.param == "store":
        (tmp_path / ACTIVE).write_text(to_json({"current": "0" * 64, "previous": None}))
        return tmp_path / ACTIVE, lambda: read_active(tmp_path)
    if request.param == "ranking":
        write_ranking(tmp_path, bundle, (Entry("onnxruntime", "cpu", "fp32", 1, {}, "passed", 0.1),))
        return tmp_path / RANKING, lambda: read_ranking(tmp_path, bundle)
    write_engine(tmp_path / "x.engine", b"plan", KEY)
    return record_of(tmp_path / "x.engine"), lambda: read_key(tmp_path / "x.engine")


def test_no_damage_ends_in_a_traceback(reader: tuple[Path, Reader]) -> None:
    path, read = reader
    read()
    good = path.read_text()
    first = good.index('"')
    name = json.loads(good[first : good.index(":")])
    damaged = [
        good[: len(good) // 2], "", "[]", "null", "1",
        "[" * 10**6, '{"a":' * 10**6, good.replace("{", '{"x": NaN, ', 1),
        good.replace("{", f'{{"{name}": 1, ', 1), "\ufeff" + good,
    ]  # fmt: skip
    if _strings(json.loads(good)) != json.loads(good):
        damaged.append(json.dumps(_strings(json.loads(good))))
    for text in damaged:
        path.write_text(text)
        with pytest.raises(TumorsegError) as caught:
            read()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 1000
    os.truncate(path, 200 * 2**20)
    with pytest.raises(TumorsegError, match="has more than"):
        read()
