from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import BackendError, BundleError, InputError
from tumorseg_runtime.device.engines import (
    Engine,
    EngineKey,
    OtherMachineError,
    Profile,
    find_engine,
    read_key,
    record_of,
    require_machine,
    write_engine,
)

KEY = EngineKey("a" * 64, "b" * 64, "fp16", "tensorrt", "10.3.0", (87,), "Orin", Profile(1, 4, 8), 1024)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "device" / KEY.name()
    write_engine(path, b"plan", KEY)
    assert read_key(path) == KEY
    assert path.read_bytes() == b"plan"
    assert path.name == f"tensorrt-fp16-sm87-{KEY.digest()[:16]}.engine"
    assert sorted(os.listdir(path.parent)) == [path.name, f"{path.name}.json"]


@pytest.mark.parametrize(
    "change",
    [
        {"onnx_sha256": "c" * 64}, {"bundle_sha256": "c" * 64}, {"precision": "fp32"}, {"tool": "rtx"},
        {"tool_version": "10.3.1"}, {"capabilities": (89,)}, {"gpu": "Thor"}, {"profile": Profile(1, 4, 9)},
        {"workspace_mb": None},
    ],
)  # fmt: skip
def test_every_part_of_a_key_makes_another_file(change: dict[str, Any]) -> None:
    assert dataclasses.replace(KEY, **change).name() != KEY.name()


@pytest.mark.fault
@pytest.mark.parametrize("damage", [b"pla", b"plam", None])
def test_a_changed_engine_is_refused(tmp_path: Path, damage: bytes | None) -> None:
    path = tmp_path / "x.engine"
    write_engine(path, b"plan", KEY)
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    with pytest.raises(BundleError, match=r"x\.engine: is missing, cut off or altered .*build the"):
        read_key(path)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("{", "is no record of an engine: cannot be read"),
        ('{"schema": 9}', "schema is 9, expected 1"),
        ('{"schema": 1, "key": {}}', "is no record of an engine: lacks the field sha256"),
    ],
)
def test_a_bad_record_is_refused(tmp_path: Path, record: str, message: str) -> None:
    path = tmp_path / "x.engine"
    write_engine(path, b"plan", KEY)
    record_of(path).write_text(record)
    with pytest.raises(BundleError, match=rf"x\.engine\.json: {message}"):
        read_key(path)


def test_the_right_engine_is_found(tmp_path: Path, small_bundle: Path) -> None:
    bundle = Bundle.open(small_bundle)
    with pytest.raises(BackendError, match=r"has no fp16 engine of bundle .* \(0 of others\): tumorseg"):
        find_engine(tmp_path, bundle, "fp16")
    ours = dataclasses.replace(KEY, bundle_sha256=bundle.digest())
    newer = dataclasses.replace(ours, profile=Profile(1, 1, 1))
    for age, key in enumerate([newer, ours, KEY, dataclasses.replace(ours, precision="fp32")]):
        path = tmp_path / key.name()
        write_engine(path, key.name().encode(), key)
        os.utime(record_of(path), ns=(10**18 - age, 10**18 - age))
    assert find_engine(tmp_path, bundle, "fp16") == Engine(
        tmp_path / newer.name(), newer, newer.name().encode()
    )
    record_of(tmp_path / newer.name()).unlink()  # as after a build that was killed
    assert find_engine(tmp_path, bundle, "fp16") == Engine(tmp_path / ours.name(), ours, ours.name().encode())
    (tmp_path / ours.name()).write_bytes(b"rot")
    with pytest.raises(BundleError, match="altered"):
        find_engine(tmp_path, bundle, "fp16")


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        (({"tensorrt": "10.4.0"}, 87, "Orin"), r"is for tensorrt 10\.3\.0, 10\.4\.0 is installed"),
        (({}, 87, "Orin"), r"is for tensorrt 10\.3\.0, none is installed"),
        (({"tensorrt": "10.3.0"}, 110, "Thor"), r"is for sm_87, this GPU \(Thor\) is sm_110"),
        (({"tensorrt": "10.3.0"}, 87, "Orin Nano"), r"was tuned on Orin, this GPU is Orin Nano"),
    ],
)
def test_an_engine_of_another_machine_is_refused(machine: tuple[Any, ...], message: str) -> None:
    require_machine(Path("x.engine"), KEY, {"tensorrt": "10.3.0"}, 87, "Orin")
    with pytest.raises(OtherMachineError, match=message):
        require_machine(Path("x.engine"), KEY, *machine)


def test_profiles() -> None:
    assert Profile.parse("1, 4,8") == Profile(1, 4, 8)
    for text in ("4,2,8", "0,1,2", "1,9,8"):
        with pytest.raises(InputError, match=r"expected three numbers from 1 on that do not fall"):
            Profile.parse(text)
    for text in ("1,8", "a,b,c", "", "1,-4,8"):
        with pytest.raises(InputError, match=r"expected three numbers such as 1,4,8"):
            Profile.parse(text)


def test_the_record_is_plain_json(tmp_path: Path) -> None:
    write_engine(tmp_path / "x.engine", b"plan", KEY)
    values = json.loads(record_of(tmp_path / "x.engine").read_text())
    assert values["key"]["profile"] == {"smallest": 1, "tuned": 4, "largest": 8}
    assert (values["bytes"], len(values["sha256"])) == (4, 64)
