"""Options and fixtures of `pytest benchmarks --benchmark-enable`: which bundle and run are timed."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tumorseg_benchmarks.variants.machine import usable_cores
from tumorseg_runtime.bundle.bundle import Bundle

if TYPE_CHECKING:
    from tumorseg_train.networks.run import Run

# The tiny network of the tests, for when no bundle is named; a conftest is no package that one could import.
_spec = importlib.util.spec_from_file_location(
    "tiny_fixtures", Path(__file__).resolve().parent.parent / "tests/conftest.py"
)
assert _spec is not None
assert _spec.loader is not None
_tests = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_tests)
tiny_data, tiny_run, tiny_bundle = _tests.tiny_data, _tests.tiny_run, _tests.tiny_bundle


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tumorseg")
    group.addoption(
        "--bundle", help="bundle to time, or $TUMORSEG_BUNDLE [a tiny network, made for the session]"
    )
    group.addoption("--run", help="run of that bundle, or $TUMORSEG_RUN: PyTorch is timed too")
    group.addoption("--save-baseline", help="file for the timings of this version")
    group.addoption("--baseline", help="such a file: fail where this version is slower beyond the noise")
    group.addoption("--threads", type=int, default=usable_cores(), help="CPU threads [all cores]")


def _named(config: pytest.Config, option: str) -> str | None:
    value: str | None = config.getoption(f"--{option}") or os.environ.get(f"TUMORSEG_{option.upper()}")
    return value


@pytest.fixture(scope="session")
def threads(pytestconfig: pytest.Config) -> int:
    """CPU threads of every variant."""
    count: int = pytestconfig.getoption("--threads")
    return count


@pytest.fixture(scope="session")
def bundle(request: pytest.FixtureRequest) -> Bundle:
    """The bundle that was named, else the tiny one."""
    named = _named(request.config, "bundle")
    if named:
        return Bundle.open(named)
    tiny: Bundle = request.getfixturevalue("tiny_bundle")
    return tiny


@pytest.fixture(scope="session")
def run(request: pytest.FixtureRequest) -> Run | None:
    """The run that was named; the tiny one where no bundle was named either; else None."""
    named = _named(request.config, "run")
    if named:
        from tumorseg_train.networks.run import Run

        return Run.open(named)
    if _named(request.config, "bundle"):
        return None
    tiny: Run = request.getfixturevalue("tiny_run")
    return tiny
