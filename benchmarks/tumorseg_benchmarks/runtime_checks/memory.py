"""Peak resident memory against a bare session, and growth over thousands of predictions.

Each measurement is a process of its own, which reads its own peak (`VmHWM`) from /proc: what `getrusage`
tells of a new process begins with the memory of its parent.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from tumorseg_benchmarks.latency.latency import MIN_ROUNDS, LatencyStats
from tumorseg_benchmarks.reports.figure import Figure, Progress, Target
from tumorseg_benchmarks.runtime_checks.end_to_end import HEIGHT, WIDTH
from tumorseg_benchmarks.runtime_checks.scenes import scene
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import BackendError, CheckFailedError
from tumorseg_runtime.core.records import Format
from tumorseg_runtime.images.read import write_png

_FORMAT = Format("list of figures", "run it by hand to see why", error=CheckFailedError, max_bytes=2**24)
PEAK_TARGET = Target(1.10)
GROWTH_TARGET = Target(1.0)  # MB per 1,000 predictions
CALLS = 3  # inferences of each process; the first reaches the peak
WARM_UP = 500  # predictions before growth counts: allocators fill their pools
SIZES = ((48, 64), (64, 64), (200, 301), (480, 640), (601, 77))  # of the images of the growth

READ = """
def resident(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1000 for line in status if line.startswith(field))  # MB
"""
BARE = f"""{READ}
import json, sys
import numpy, onnxruntime
path, threads, shape, calls = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]), int(sys.argv[4])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = threads
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
batch = numpy.zeros([1, *shape], numpy.float32)
for _ in range(calls):
    session.run(None, {{session.get_inputs()[0].name: batch}})
print(resident("VmHWM"))
"""
OURS = f"""{READ}
import sys
from tumorseg_runtime import Segmenter
bundle, threads, image, calls = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
segmenter = Segmenter.open(bundle, threads=threads)
for _ in range(calls):
    segmenter.predict(image)
print(resident("VmHWM"))
"""
GROWTH = f"""{READ}
import json, sys
from tumorseg_runtime import Segmenter
bundle, threads, count, images = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
segmenter = Segmenter.open(bundle, threads=threads)
seen = []
for number in range(count):
    segmenter.predict(images[number % len(images)])
    if number % 10 == 0:
        seen.append([number, resident("VmRSS")])
print(json.dumps(seen))
"""


def measure_peak(bundle: Bundle, threads: int, progress: Progress) -> list[Figure]:
    """Peak of a process that segments a 1080p gray file, against one that only runs the graph."""
    _require_proc()
    contract = bundle.contract
    graph = bundle.root / bundle.artefact("onnx", "fp32").file
    shape = json.dumps([contract.channels, contract.height, contract.width])
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "scene.png"
        write_png(image, scene(bundle, HEIGHT, WIDTH, colour=False, seed=0))
        for number in range(MIN_ROUNDS):
            ours = float(_run(OURS, bundle.root, threads, image, CALLS))
            raw = float(_run(BARE, graph, threads, shape, CALLS))
            pairs.append((ours, raw))
            progress(f"peak memory: round {number + 1}/{MIN_ROUNDS}: {ours:.0f} MB, bare {raw:.0f} MB")
    stats = LatencyStats.of([ours / raw for ours, raw in pairs])
    ours, raw = np.median(pairs, axis=0)
    note = f"{ours:.0f} MB against {raw:.0f} MB"
    return [Figure("peak memory / bare session", stats.median, "ratio", stats, PEAK_TARGET, note)]


def measure_growth(bundle: Bundle, threads: int, predictions: int, progress: Progress) -> list[Figure]:
    """Slope of the resident memory over predictions of files of changing sizes, after a warm-up."""
    _require_proc()
    progress(f"growth: {WARM_UP} + {predictions} predictions")
    with tempfile.TemporaryDirectory() as folder:
        images = [Path(folder) / f"{index}.png" for index in range(len(SIZES))]
        for index, (path, (height, width)) in enumerate(zip(images, SIZES, strict=True)):
            write_png(path, scene(bundle, height, width, colour=False, seed=index))
        answer = _run(GROWTH, bundle.root, threads, WARM_UP + predictions, *images)
    seen = _FORMAT.parse(answer, "the process that was measured", list[list[float]])
    numbers, megabytes = np.array([pair for pair in seen if pair[0] >= WARM_UP]).T
    slope = float(np.polyfit(numbers, megabytes, 1)[0]) * 1000
    note = f"{megabytes[0]:.1f} MB at prediction {WARM_UP}, {megabytes[-1]:.1f} MB at the end"
    name = f"growth over {predictions} predictions"
    return [Figure(name, slope, "MB per 1,000", None, GROWTH_TARGET, note)]


def _run(code: str, *arguments: object) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CheckFailedError(f"a process that was measured failed: {done.stderr.strip()}")
    return done.stdout


def _require_proc() -> None:
    if not Path("/proc/self/status").is_file():
        raise BackendError("this system has no /proc/self/status, expected Linux: leave the memory out")
