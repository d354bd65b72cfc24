"""Where a bundle comes from: versions, hashes and the commit, without time or paths."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tumorseg_train.networks.run import Run

# The distributions whose code decides what is in a bundle; onnxruntime comes as one of two.
DISTRIBUTIONS = (
    "tumorseg", "torch", "segmentation-models-pytorch", "timm", "safetensors", "onnx", "onnxscript",
    "onnx-ir", "onnxruntime", "onnxruntime-gpu", "numpy", "opencv-python-headless",
)  # fmt: skip
HERE = Path(__file__).resolve().parent


def origin_of(run: Run) -> dict[str, str]:
    """Facts that name the network: a function of the run and of tumorseg's version alone."""
    return {
        "tumorseg": version("tumorseg"),
        "architecture": run.architecture,
        "encoder": run.encoder,
        "checkpoint_sha256": run.checkpoint_sha256,
        "split_sha256": run.data["split_sha256"],
    }


def training_facts(run: Run) -> dict[str, Any]:
    """What a bundle says about the training; folders of the training machine are left out."""
    training = {**run.training}
    for entry, name in (("recipe", "encoder_weights"), ("initial_weights", "path")):
        said = training.get(entry)
        if isinstance(said, dict) and name in said:
            training[entry] = {**said, name: Path(str(said[name])).name}
    return {
        "phantoms": run.data["phantoms"],
        "data": {name: value for name, value in run.data.items() if name not in ("root", "phantoms")},
        "metrics": run.metrics,
        "training": training,
    }


def provenance_of(origin: dict[str, str], golden_from: str) -> dict[str, Any]:
    """`provenance` of `bundle.json`: origin, versions, machine type, and the commit where there is one."""
    return {
        **origin,
        "golden_images": golden_from,
        "versions": {"python": platform.python_version(), **installed_versions()},
        "machine": f"{platform.system()} {platform.machine()}",
        "git": git_commit(),
    }


def installed_versions() -> dict[str, str]:
    """Versions of those of `DISTRIBUTIONS` that are installed."""
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # of the two onnxruntimes one is absent
    return found


def git_commit(folder: Path = HERE) -> dict[str, Any] | None:
    """Commit of the source tree that this code runs from, and whether files differ from it.

    None where the code is installed without its repository, where nothing was committed, or without git.
    """
    top = _git(folder, "rev-parse", "--show-toplevel")
    # A wheel inside another project's folder must not carry that project's commit.
    if top is None or Path(top).resolve() / "export" / "tumorseg_export" != folder:
        return None
    commit, status = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain")
    return None if commit is None else {"commit": commit, "changed": bool(status)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
