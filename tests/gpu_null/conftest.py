from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from gpu_null.floor import Floor
from gpu_null.libraries import PROVIDER, build_driver, build_kernels, build_toolkit
from tumorseg_runtime.processing import kernels

HOME = Path(__file__).parents[2] / "build" / "gpu-null"  # made by `make gpu-null`
REQUIRE = "TUMORSEG_REQUIRE_GPU_NULL"


def _lacking(reason: str) -> None:
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(f"{reason} ({REQUIRE}=1)")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Floor:
    """This interpreter on the null driver, with our kernels built for the host."""
    if missing := [tool for tool in ("gcc", "g++") if not shutil.which(tool)]:
        _lacking(f"no {' and no '.join(missing)} to build the null GPU with")
    folder = tmp_path_factory.mktemp("gpu-null")
    build_driver(folder)
    return Floor(Path(sys.executable), folder, build_kernels((kernels.SOURCE, kernels.DECIDE), folder))


@pytest.fixture(scope="session")
def toolkit(tmp_path_factory: pytest.TempPathFactory) -> Floor:
    """onnxruntime-gpu, in an environment of its own, on all stub libraries."""
    if not (HOME / "ready").is_file():
        _lacking("no environment with onnxruntime-gpu on the null GPU: make gpu-null makes it")
    folder = tmp_path_factory.mktemp("gpu-null-toolkit")
    (provider,) = HOME.glob(f"venv/lib/python*/site-packages/onnxruntime/capi/{PROVIDER}")
    build_toolkit(folder, provider)
    kernels_here = build_kernels((kernels.SOURCE, kernels.DECIDE), folder)
    return Floor(HOME / "venv" / "bin" / "python", folder, kernels_here)
