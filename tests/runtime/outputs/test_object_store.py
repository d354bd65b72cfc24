"""What is said of an object store where nothing can read one."""

from __future__ import annotations

import sys

import pytest

from tumorseg_runtime.core.errors import BackendError
from tumorseg_runtime.outputs.object_store import list_stored


def test_without_pyarrow_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.fs", None)
    with pytest.raises(BackendError, match=r"pip install 'tumorseg\[ray\]'"):
        list_stored("s3://bucket/without-pyarrow", print)
