"""Files are written by `core/files.py` and JSON is read by `core/records.py`, and nowhere else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
CORE = tuple(f"runtime/tumorseg_runtime/core/{name}.py" for name in ("files", "reading", "records"))
# The child of the MNN backend imports nothing of ours: its messages come from our own process.
# Golden arrays are packed in memory, and the bytes written by `core/files.py`.
ALLOWED = {
    ("runtime/tumorseg_runtime/backends/mnn_worker.py", "json.loads"),
    ("export/tumorseg_export/references/golden_images.py", "np.savez_compressed"),
    ("runtime/tumorseg_runtime/cli/terminal.py", "os.open"),  # of /dev/null
}
WRITES = {"write_text", "write_bytes", "rename", "touch", "savez", "savez_compressed", "imwrite", "copyfile"}
CALLS = {
    "json.load", "json.loads", "os.replace", "os.rename", "os.link", "os.open", "os.fdopen", "shutil.move",
    "onnx.save", "tempfile.mkstemp", "tempfile.mkdtemp", "tempfile.NamedTemporaryFile",
}  # fmt: skip


def found_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and "fcntl" in ast.unparse(node):
            yield "fcntl"
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        last = name.rpartition(".")[2]
        texts = [arg.value for arg in (*node.args, *(word.value for word in node.keywords))
                 if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]  # fmt: skip
        opens = last == "open" and any(
            set(text) <= set("rwaxbt+") and set(text) & set("wax+") for text in texts
        )
        moves = last == "replace" and "." in name and len(node.args) == 1 and not node.keywords
        if name in CALLS or ("." in name and last in WRITES) or opens or moves:
            yield name


def test_nobody_else_writes_files_or_reads_json() -> None:
    found = set()
    for package in ("runtime", "train", "export", "benchmarks"):
        for path in sorted((REPOSITORY / package).glob(f"tumorseg_{package}/**/*.py")):
            name = path.relative_to(REPOSITORY).as_posix()
            if name not in CORE:
                found |= {(name, call) for call in found_in(ast.parse(path.read_text(encoding="utf-8")))}
    assert found == ALLOWED


def test_nobody_else_speaks() -> None:
    """Every line passes `cli/terminal.py`, which lets no foreign text command a terminal."""
    speaks = re.compile(r"\b(click\.(echo|secho)|sys\.(stdout|stderr)\.write|print)\(")
    children = {"cold_start.py", "memory.py", "start_up.py"}  # their prints run in processes of their own
    found = {
        path.name
        for package in ("runtime", "train", "export", "benchmarks")
        for path in (REPOSITORY / package).glob(f"tumorseg_{package}/**/*.py")
        if speaks.search(path.read_text(encoding="utf-8"))
    }
    assert found - children == {"terminal.py"}


def test_the_search_finds_what_it_is_for() -> None:
    source = "import fcntl\npath.open('wb')\nopen(x, 'a')\np.rename(q)\np.replace(q)\njson.loads(s)\np.write_text(s)"  # noqa: E501
    assert len(list(found_in(ast.parse(source)))) == 7
    assert not list(found_in(ast.parse("p.open('rb'); s.replace('a', 'b'); write_text(p, s)")))
