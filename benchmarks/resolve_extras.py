"""Which GPU extra can be installed where? `python benchmarks/resolve_extras.py` (needs uv: pip install uv).

Resolves every extra of pyproject.toml that brings a GPU, for each Python and platform, from wheels alone, and
installs nothing. A cell is the version of the package that the extra is for, or why there is none.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
PLATFORMS = {"x86-64": "x86_64-manylinux_2_28", "aarch64": "aarch64-manylinux_2_28"}
# extra -> the packages whose versions are shown
EXTRAS = {
    "gpu-cu12": ("onnxruntime-gpu", "cuda-bindings"),
    "gpu-cu13": ("onnxruntime-gpu", "cuda-bindings"),
    "kernel-cu12": ("cuda-bindings", "nvidia-cuda-nvrtc-cu12"),
    "kernel-cu13": ("cuda-bindings", "nvidia-cuda-nvrtc"),
    "tensorrt-rtx": ("tensorrt-rtx",),
    "tensorrt-cu12": ("tensorrt-cu12",),
    "tensorrt-cu13": ("tensorrt-cu13",),
}
AT_ONCE = 4  # the index is what it waits for
SOURCES = "tensorrt"  # TensorRT's placeholders are no wheels; their metadata is read, nothing is built


def resolve(extra: str, python: str, platform: str) -> str:
    """The versions as 'a, b', or '-' with the name of what has no fitting wheel."""
    command = [
        shutil.which("uv") or str(Path(sys.executable).with_name("uv")), "pip", "compile", "--quiet",
        "--extra", extra, "--python-version", python, "--python-platform", platform,
        str(ROOT / "pyproject.toml"),
    ]  # fmt: skip
    if not extra.startswith(SOURCES):
        command += ["--only-binary", ":all:"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        missing = [name for name in EXTRAS[extra] if name in done.stderr]
        return f"- ({', '.join(missing) or ' '.join(done.stderr.split())[:80]})"
    found = dict(re.findall(r"^([\w-]+)==(\S+)", done.stdout, re.MULTILINE))
    return ", ".join(found.get(name, "?") for name in EXTRAS[extra])


def main() -> None:
    """Print the table as Markdown."""
    cells = [(python, name) for name in PLATFORMS for python in PYTHONS]
    print("| extra | of |", " | ".join(f"{name}, {python}" for python, name in cells), "|")  # noqa: T201
    print("|---" * (len(cells) + 2), "|", sep="")  # noqa: T201
    with ThreadPoolExecutor(AT_ONCE) as pool:
        rows = {
            extra: pool.map(lambda cell, extra=extra: resolve(extra, cell[0], PLATFORMS[cell[1]]), cells)
            for extra in EXTRAS
        }
        for extra, packages in EXTRAS.items():
            print(f"| `{extra}` | {', '.join(packages)} |", " | ".join(rows[extra]), "|", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
