from __future__ import annotations

import ctypes
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from tumorseg_runtime.device.driver import why_no_driver


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    why_no_driver.cache_clear()
    yield
    why_no_driver.cache_clear()


def test_no_library_means_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert why_no_driver() == "no NVIDIA driver"


@pytest.mark.parametrize(
    ("status", "reason"), [(0, None), (100, "no CUDA device"), (12345, "cuInit returned 12345")]
)
def test_the_driver_is_asked_once(monkeypatch: pytest.MonkeyPatch, status: int, reason: str | None) -> None:
    calls: list[int] = []

    def init(flags: int) -> int:
        calls.append(flags)
        return status

    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(cuInit=init))
    answers = [why_no_driver() for _ in range(3)]
    assert calls == [0]
    for answer in answers:
        assert answer is None if reason is None else answer is not None and reason in answer
