"""The direction of imports, and what the runtime loads."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

import tumorseg_runtime

pytestmark = pytest.mark.process

REPOSITORY = Path(__file__).parents[2]
HEAVY = (
    "torch", "torchvision", "onnx", "matplotlib", "onnxruntime", "albumentations",
    "segmentation_models_pytorch", "pytorch_lightning", "safetensors", "scipy", "PIL", "pydicom",
    "highdicom", "nibabel",
)  # fmt: skip


def loaded_after(code: str, absent: tuple[str, ...] = ()) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after `code`; importing `absent` fails in it."""
    script = (
        f"import json, sys; sys.modules.update(dict.fromkeys({absent!r})); {code}; "
        "print(json.dumps([name for name, module in sys.modules.items() if module]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


def modules_of_the_runtime() -> list[str]:
    root = Path(tumorseg_runtime.__file__).parent
    files = sorted(root.rglob("*.py"))
    return [".".join((root.name, *file.relative_to(root).with_suffix("").parts)) for file in files]


def test_importing_the_runtime_loads_nothing_heavy() -> None:
    loaded = loaded_after("import tumorseg_runtime")
    assert "cv2" in loaded
    assert loaded.isdisjoint(HEAVY)
    assert {name for name in loaded if name.startswith("tumorseg")} == {"tumorseg_runtime"}


def test_what_only_a_self_test_needs_is_loaded_by_it() -> None:
    """Each costs milliseconds of every start: `python -m tumorseg_benchmarks.runtime_checks`."""
    assert "zipfile" not in loaded_after("import tumorseg_runtime")
    assert "zipfile" in loaded_after("import tumorseg_runtime.parity.reference")


def test_every_module_of_the_runtime_imports_with_only_the_base_installed() -> None:
    names = modules_of_the_runtime()
    assert "tumorseg_runtime.cli.predict" in names
    loaded_after("import " + ", ".join(name.removesuffix(".__init__") for name in names), absent=HEAVY)


@pytest.mark.skipif(importlib.util.find_spec("ruff") is None, reason="ruff is not installed (extra dev)")
@pytest.mark.parametrize(
    ("folder", "package"),
    [
        ("runtime/tumorseg_runtime", "torch"),
        ("runtime/tumorseg_runtime", "onnx"),
        ("runtime/tumorseg_runtime", "matplotlib"),
        ("runtime/tumorseg_runtime", "tumorseg_train"),
        ("train/tumorseg_train", "tumorseg_export"),
        ("train/tumorseg_train", "onnxruntime"),
        ("export/tumorseg_export", "tumorseg_benchmarks"),
        ("runtime/tumorseg_runtime", None),
        ("export/tumorseg_export", "tumorseg_train"),
        ("benchmarks/tumorseg_benchmarks", "tumorseg_export"),
    ],
)
def test_the_linter_holds_the_direction_of_imports(folder: str, package: str | None) -> None:
    allowed = package is None or (folder, package) in {
        ("export/tumorseg_export", "tumorseg_train"),
        ("benchmarks/tumorseg_benchmarks", "tumorseg_export"),
    }
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--no-cache",
        "--select",
        "TID251",
        "--output-format",
        "concise",
    ]
    done = subprocess.run(
        [*command, "--stdin-filename", f"{folder}/x.py", "-"],
        input=f"import {package or 'numpy'}\n",
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=60,
        check=False,
    )
    assert done.returncode == (0 if allowed else 1), done.stdout + done.stderr
    if not allowed:
        assert "TID251" in done.stdout
        assert ": " in done.stdout.split("is banned", 1)[1]  # the remedy
