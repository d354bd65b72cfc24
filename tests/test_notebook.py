"""The notebook runs from top to bottom; what its last lines give is short."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples" / "chain.ipynb"


def cells() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return found


def test_the_notebook_is_kept_without_outputs() -> None:
    code = [cell for cell in cells() if cell["cell_type"] == "code"]
    assert len(code) >= 8
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert len({cell["id"] for cell in cells()}) == len(cells())


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("torch", "onnx", "onnxruntime"):
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    shown = []
    for cell in cells():
        if cell["cell_type"] != "code":
            continue
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, cell["id"], "exec"), names)
        if last is not None:
            shown.append(repr(eval(compile(ast.Expression(last.value), cell["id"], "eval"), names)))
    assert shown[0] == "{'train': 32, 'val': 10, 'test': 6}"
    assert [line for line in shown if len(line) > 300] == []
    assert any("PyTorch eager" in line and " ms" in line for line in shown)
    assert {"mask.png", "overlay.png", "bundle", "run"} <= {
        one.name for one in Path("notebook-output").iterdir()
    }
    assert names["prediction"]._repr_png_().startswith(b"\x89PNG")
