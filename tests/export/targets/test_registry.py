"""The records of the targets: each module makes what its record promises, and no variant has a module."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

from tumorseg_export.targets.registry import TARGETS
from tumorseg_runtime.backends import BACKENDS

# modules of the folder that are no target
HELPERS = {"__init__", "registry", "converter_process", "validate_parity", "int8_acceptance"}


@pytest.mark.parametrize("name", TARGETS)
def test_the_module_makes_the_target_with_its_options(name: str) -> None:
    target = TARGETS[name]
    make = importlib.import_module(target.module).make
    bound = inspect.signature(make).bind("context", "folder", **target.options)
    assert list(bound.arguments) == ["context", "folder", *target.options]
    assert set(target.needs) <= set(TARGETS)
    assert target.instead_of in ("", *TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_it_is_proven_by_backends_that_know_the_device(name: str) -> None:
    target = TARGETS[name]
    for backend, device in target.validated_on:
        assert device in BACKENDS[backend].devices
    assert target.extra == BACKENDS[target.validated_on[0][0]].devices[target.validated_on[0][1]]


def test_every_backend_has_a_target_that_it_proves() -> None:
    proven = {backend for target in TARGETS.values() for backend, _ in target.validated_on}
    assert proven <= set(BACKENDS)
    made_on_the_device = {name for name, spec in BACKENDS.items() if not spec.formats}
    assert set(BACKENDS) - proven == made_on_the_device


def test_a_module_of_the_folder_is_a_target_or_helps_one() -> None:
    """A variant is an option of a record, not a module: no two records are the same call."""
    folder = Path(importlib.import_module("tumorseg_export.targets").__file__ or "").parent
    modules = {target.module.rpartition(".")[2] for target in TARGETS.values()} - {"export"}
    assert {path.stem for path in folder.glob("*.py")} == HELPERS | modules
    calls = {(target.module, *sorted(target.options.items())) for target in TARGETS.values()}
    assert len(calls) == len(TARGETS)
