"""Options and fixtures of `pytest benchmarks`: which bundle is timed."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from tumorseg_benchmarks.variants.machine import usable_cores
from tumorseg_runtime.bundle.bundle import Bundle

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
    group.addoption("--save-baseline", help="file for the timings of this version")
    group.addoption("--baseline", help="such a file: fail where this version is slower beyond the noise")
    group.addoption("--threads", type=int, default=usable_cores(), help="CPU threads [all cores]")


@pytest.fixture(scope="session")
def threads(pytestconfig: pytest.Config) -> int:
    """CPU threads of every variant."""
    count: int = pytestconfig.getoption("--threads")
    return count


@pytest.fixture(scope="session")
def bundle(request: pytest.FixtureRequest) -> Bundle:
    """The bundle that was named, else the tiny one."""
    if named := request.config.getoption("--bundle") or os.environ.get("TUMORSEG_BUNDLE"):
        return Bundle.open(named)
    tiny: Bundle = request.getfixturevalue("tiny_bundle")
    return tiny
