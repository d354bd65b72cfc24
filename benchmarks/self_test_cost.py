"""What `verify` and the self-tests cost: `python benchmarks/self_test_cost.py BUNDLE [--before TREE]`.

Each is run in a process of its own, the kinds in turn, ONNX Runtime in FP32 on the CPU. Printed are seconds
of the CPU (user and system, all threads) and of the clock, and how many images the network itself was given,
which no other load changes. TREE: a checkout of commit 9361ddb, before the one loop; the bundle is given to
it with the schema number and the contract's fields of that time, its files and golden images are the same.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import click

HERE = Path(__file__).parents[1]
PACKAGES = ("train", "runtime", "export", "benchmarks")
CHILD = """
import json, sys, time
from pathlib import Path
import onnxruntime
root, given, run = Path(sys.argv[1]), [], onnxruntime.InferenceSession.run
def counted(self, names, feeds, *rest):
    batch = next(iter(feeds.values()))
    if batch.shape[-1] == int(sys.argv[2]):
        given.append(len(batch))
    return run(self, names, feeds, *rest)
onnxruntime.InferenceSession.run = counted
wall, cpu = time.perf_counter(), time.process_time()
{body}
print(json.dumps([time.process_time() - cpu, time.perf_counter() - wall, sum(given)]))
"""
OPEN = "from tumorseg_runtime import Segmenter; Segmenter.open(root{})"
VERIFY = """found = verify_bundle(root{}, backend='onnxruntime', device='cpu', precision='fp32')
assert found.passed, found"""
NOW = {
    "open alone": OPEN.format(""),
    "self-test quick": OPEN.format(", self_test='quick'"),
    "self-test full": OPEN.format(", self_test='full'"),
    "verify": "from tumorseg_runtime.parity.verify import verify_bundle\n"
    "from tumorseg_runtime.inference.segmenter import door_of\n" + VERIFY.format(", door_of"),
}
BEFORE = {
    "before: open alone": OPEN.format(""),
    "before: self-test": OPEN.format(", self_test=True"),
    "before: verify": "from tumorseg_runtime.verification import verify_bundle\n" + VERIFY.format(""),
}


def measured(tree: Path, bundle: Path, width: int, body: str) -> tuple[float, float, int]:
    """Seconds of the CPU, of the clock, and images that the network was given."""
    paths = os.pathsep.join(str(tree / name) for name in PACKAGES)
    command = [sys.executable, "-c", CHILD.format(body=body), str(bundle), str(width)]
    found = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": paths}, check=True, stdout=subprocess.PIPE
    )
    cpu, wall, images = json.loads(found.stdout.splitlines()[-1])
    return cpu, wall, images


def of_that_time(bundle: Path, folder: Path) -> Path:
    """The bundle as schema 1 had it."""
    root = folder / "bundle"
    shutil.copytree(bundle, root, ignore=shutil.ignore_patterns("bundle.json*"))
    values = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    contract = {name: one for name, one in values["contract"].items() if name not in ("rule", "temperature")}
    values |= {"schema": 1, "contract": contract}
    (root / "bundle.json").write_text(json.dumps(values), encoding="utf-8")
    return root


@click.command()
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@click.option("--before", type=click.Path(exists=True, path_type=Path), help="A checkout of 9361ddb.")
@click.option("--rounds", default=3, show_default=True, help="How often each is run, in turn.")
def main(bundle: Path, before: Path | None, rounds: int) -> None:
    """Print a table of what verify and the self-tests cost on a bundle."""
    width = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))["contract"]["width"]
    seconds: dict[str, list[tuple[float, float, int]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        kinds = [(name, HERE, bundle, body) for name, body in NOW.items()]
        if before is not None:
            old = of_that_time(bundle, Path(folder))
            kinds += [(name, before, old, body) for name, body in BEFORE.items()]
        for number in range(rounds):
            for name, tree, root, body in kinds:
                seconds.setdefault(name, []).append(measured(tree, root, width, body))
                click.echo(f"round {number + 1}: {name}: {seconds[name][-1]}", err=True)
    click.echo(
        "| | images | CPU, s: median (least-most) | clock, s: median (least-most) |\n|---|---|---|---|"
    )
    for name, found in seconds.items():
        cpu, wall, images = zip(*found, strict=True)
        spread = [f"{statistics.median(one):.1f} ({min(one):.1f}-{max(one):.1f})" for one in (cpu, wall)]
        click.echo(f"| {name} | {max(images)} | {' | '.join(spread)} |")


if __name__ == "__main__":
    main()
