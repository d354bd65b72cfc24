"""What only a machine with an NVIDIA GPU can show; elsewhere the tests are skipped with the reason.

`make gpu-check` sets TUMORSEG_REQUIRE_GPU=1: then what is missing is a failure. Only what a GPU of its
kind can never run is still skipped.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NoReturn

import pytest

from tumorseg_runtime.device.driver import why_no_driver

REQUIRE = "TUMORSEG_REQUIRE_GPU"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "gpu":
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session")
def lacking() -> Callable[[str], NoReturn]:
    """Function that ends a test for what this machine lacks: skipped, or failed where a GPU is required."""

    def end(reason: str) -> NoReturn:
        if os.environ.get(REQUIRE) == "1":
            pytest.fail(f"{reason} ({REQUIRE}=1)")
        pytest.skip(reason)

    return end


@pytest.fixture(scope="session", autouse=True)
def _driver(lacking: Callable[[str], NoReturn]) -> None:
    """Ask the driver once, before any test touches a GPU library."""
    if reason := why_no_driver():
        lacking(reason)
