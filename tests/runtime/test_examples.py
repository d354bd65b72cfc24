from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tumorseg_runtime.images.read import write_png

pytestmark = pytest.mark.process

EXAMPLE = Path(__file__).parents[2] / "examples" / "device.py"


def run(*args: object, cache: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE), *map(str, args)],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
        timeout=120,
        check=False,
    )


def test_the_device_reacts_to_lesions_and_to_what_is_wrong(
    small_bundle: Path, tmp_path: Path, scene: Callable[..., npt.NDArray[np.uint8]]
) -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 40
    folder = tmp_path / "frames"
    folder.mkdir()
    write_png(folder / "2.png", scene(80, 90))
    for number in range(3, 33):  # far faster read than judged
        write_png(folder / f"{number}.png", np.zeros((40, 50), np.uint8))
    (folder / "1.png").write_bytes(b"nothing")
    done = run(small_bundle, folder, cache=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    first, *lines = done.stdout.splitlines()
    assert first.startswith("onnxruntime {'onnxruntime': ")
    by_name = {Path(line.partition(":")[0]).name: line for line in lines}
    assert set(by_name) == {path.name for path in folder.iterdir()}, "every frame is judged"
    assert "not judged" in by_name["1.png"]
    assert "LESION at (" in by_name["2.png"]
    assert all("nothing found" in by_name[name] for name in by_name if name not in ("1.png", "2.png"))
    for given in ([], [small_bundle], [small_bundle, tmp_path / "absent"], [small_bundle, folder, "more"]):
        wrong = run(*given, cache=tmp_path)
        assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
        assert "expected a bundle and a folder of frames" in wrong.stderr
    broken = run(tmp_path, folder, cache=tmp_path)
    assert broken.returncode == 1
    assert broken.stderr.startswith("this device does not serve: ")
