from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tumorseg_runtime.images.read import write_png

pytestmark = pytest.mark.process

PAGE = Path(__file__).parents[2] / "docs" / "runtime.md"


def test_the_example_runs_as_printed(
    small_bundle: Path, tmp_path: Path, scene: Callable[..., npt.NDArray[np.uint8]]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(code.strip().splitlines()) <= 11
    shutil.copytree(small_bundle, tmp_path / "bundle")
    write_png(tmp_path / "scan.png", scene(90, 120))
    for name, expected in (
        ("scan.png", r"tumour \d+ \(\d+, \d+, \d+, \d+\)"),
        ("gone.png", "not segmented: gone.png"),
    ):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code.replace("scan.png", name)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=120,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert re.match(expected, done.stdout)
