"""The records of the backends: each module has what its record promises, and every table follows."""

from __future__ import annotations

import importlib
import inspect
from collections import Counter
from pathlib import Path

import pytest

import tumorseg_runtime.backends as registry
from tumorseg_runtime.backends import BACKENDS, MASK_BACKENDS, uses_folder, why_unavailable
from tumorseg_runtime.cli import diagnostics, main
from tumorseg_runtime.core.backend import BackendSpec
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.session import InProcess, Session
from tumorseg_runtime.parity.verify import DEVICES, devices_of

# modules of the folder that are no backend: what a worker runs, what starts it, sessions, and what chooses
HELPERS = {"__init__", "mnn_worker", "onnxruntime_sessions", "worker", "selection"}
VERBS = ("infer", "output", "restarts", "interrupt", "close")
SPECS = list(BACKENDS.values())
by_name = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)


@by_name
def test_the_module_opens_a_session_of_a_record(spec: BackendSpec) -> None:
    names = list(inspect.signature(importlib.import_module(spec.module).open_session).parameters)
    expected = ["spec", "bundle", "device", "precision", "threads"]
    assert names == [*expected, *(["device_folder"] if spec.device_folder or spec.keeps_engines else [])]


@by_name
def test_the_module_knows_the_devices_of_the_record_and_no_others(spec: BackendSpec) -> None:
    assert set(spec.devices) <= set(DEVICES)
    for device in DEVICES:
        if device in spec.devices:
            assert why_unavailable(spec.name, device) != ""
        else:
            with pytest.raises(InputError, match=f"device is '{device}', expected "):
                why_unavailable(spec.name, device)


@by_name
def test_the_sessions_of_the_module_give_what_the_record_says_and_have_every_verb(spec: BackendSpec) -> None:
    module = importlib.import_module(spec.module)
    (session,) = (
        one
        for name, one in vars(module).items()
        if name.endswith("Session") and inspect.isclass(one) and one.__module__.startswith(spec.module)
    )
    if len({other.output for other in SPECS if other.module == spec.module}) == 1:
        assert session.output == spec.output
    assert all(hasattr(session, verb) for verb in VERBS)


def test_a_session_in_this_process_has_the_members_of_the_protocol() -> None:
    members = {name for name in vars(Session) if not name.startswith("_")}
    assert members == {*VERBS, "input", "info"}
    assert {name for name in vars(InProcess) if not name.startswith("_")} == members - {
        "input", "info", "infer",
    }  # fmt: skip


def test_a_module_of_the_folder_is_a_backend_or_helps_one() -> None:
    """A variant is an option of a record, not a module."""
    folder = Path(importlib.import_module("tumorseg_runtime.backends").__file__ or "").parent
    modules = Counter(spec.module.rpartition(".")[2] for spec in SPECS)
    assert {path.stem for path in folder.glob("*.py")} == HELPERS | set(modules)
    for spec in SPECS:
        shared = modules[spec.module.rpartition(".")[2]] > 1
        assert shared or not spec.options


def test_every_table_follows_from_the_records() -> None:
    assert len(BACKENDS) == len(registry._RECORDS)  # no two of one name
    forms = ("deploy", "deploy-gray")
    assert tuple(f"{of}-{form}" for of in ("onnxruntime", "tensorrt") for form in forms) == MASK_BACKENDS
    built = ["tensorrt", "tensorrt-deploy", "tensorrt-deploy-gray"]
    assert [name for name in BACKENDS if uses_folder(name, "cuda:1")] == built
    assert uses_folder("onnxruntime", "tensorrt:1")
    assert not uses_folder("another", "cuda")
    assert {(name, device) for name in BACKENDS for device in devices_of(name)} == {
        (spec.name, device) for spec in SPECS for device in spec.devices
    }
    for spec in SPECS:
        for device, extra in spec.devices.items():
            assert diagnostics.EXTRAS.get((spec.name, device)) == extra
        for package in spec.wheels[:1]:
            assert main.MODULE_EXTRAS[package] == spec.devices["cpu"]
            named = diagnostics.RIVALS if len(spec.wheels) > 1 else diagnostics.PACKAGES
            assert package in named
    assert ("openvino", "gpu") not in diagnostics.EXTRAS  # no extra brings an Intel GPU


def test_a_label_names_the_form_the_precision_and_the_device() -> None:
    labels = [
        spec.label_of(device, precision)
        for spec in SPECS
        for device in spec.devices
        for precision in spec.precisions
    ]
    assert len(set(labels)) == len(labels)
    assert BACKENDS["onnxruntime"].label_of("tensorrt", "fp16") == "ONNX FP16, ONNX Runtime TensorRT"
    assert BACKENDS["mnn-exact"].label_of("cpu", "fp32") == "MNN FP32 exact, CPU"
