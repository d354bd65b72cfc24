# ruff: noqa: T201
"""Images per second of a Triton server with our runtime, and of the runtime alone on as many processes.

    build/scale/triton/bin/python tests/scale/triton_throughput.py BUNDLE IMAGES --precision fp16 [--rounds 5]

Rounds in turn, each of all images: 8 clients by gRPC on the server; then as many processes of the runtime as
the server has instances, by `predict_each` with the same batch. Beside the time, the CPU seconds of an image,
which say the same on a machine that others use.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton

from scale.triton_server import serving
from tumorseg_runtime import Segmenter

CLIENTS, TICK = 8, os.sysconf("SC_CLK_TCK")
WRITE = "from tumorseg_runtime.cli.serve_repository import serve_repository; serve_repository()"
segmenter: Segmenter | None = None


def open_one(bundle: str, precision: str, batch: int) -> None:
    global segmenter
    segmenter = Segmenter.open(bundle, precision=precision, threads=1, batch_size=batch)


def alone(paths: list[Path]) -> float:
    """CPU seconds of these images in this process."""
    assert segmenter is not None
    before = time.process_time()
    assert sum(1 for _ in segmenter.predict_each(paths)) == len(paths)
    return time.process_time() - before


def cpu_of(pids: set[int]) -> float:
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(one[11]) + int(one[12]) for one in fields) / TICK


def ask(address: str, paths: list[Path]) -> int:
    client = triton.InferenceServerClient(address)
    for path in paths:
        image = triton.InferInput("IMAGE", [1, 1], "BYTES")
        image.set_data_from_numpy(np.array([[path.read_bytes()]], np.object_))
        client.infer("tumorseg", [image], outputs=[triton.InferRequestedOutput("MASK")])
    client.close()
    return len(paths)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle")
    parser.add_argument("images", type=Path)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--instances", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    paths = sorted(options.images.glob("*.png"))
    count, instances = len(paths), options.instances
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder, "repository")
        command = [sys.executable, "-c", WRITE, options.bundle, "--out", str(repository), "--threads", "1"]
        command += [
            "--precision",
            options.precision,
            "--instances",
            str(instances),
            "--batch",
            str(options.batch),
        ]
        subprocess.run(command, check=True, capture_output=True)
        given = (options.bundle, options.precision, options.batch)
        rows: list[tuple[float, float, float, float]] = []
        with (
            serving(repository, Path(folder)) as server,
            ProcessPoolExecutor(instances, initializer=open_one, initargs=given) as processes,
            ThreadPoolExecutor(CLIENTS) as clients,
        ):
            for number in range(options.rounds + 1):  # the first warms up
                pids, start = server.processes(), time.monotonic()
                before = cpu_of(pids)
                shares = [paths[place::CLIENTS] for place in range(CLIENTS)]
                assert sum(clients.map(ask, [server.grpc] * CLIENTS, shares)) == count
                served, served_cpu = time.monotonic() - start, cpu_of(pids) - before
                start = time.monotonic()
                own_cpu = sum(processes.map(alone, [paths[place::instances] for place in range(instances)]))
                own = time.monotonic() - start
                if number:
                    rows.append((count / served, count / own, own / served, own_cpu / served_cpu))
                    print(
                        f"Triton {count / served:.2f} images/s, {served_cpu / count:.3f} CPU s each; ", end=""
                    )
                    print(f"runtime {count / own:.2f}, {own_cpu / count:.3f}", flush=True)
    ratio, of_cpu = (statistics.median(row[place] for row in rows) for place in (2, 3))
    print(f"Triton's throughput / the runtime's, median: {ratio:.3f}; by CPU time {of_cpu:.3f}")


if __name__ == "__main__":
    main()
