"""Is the method right? `python -m tumorseg_benchmarks.runtime_checks.validation`: differences where there
are none, and a difference of 3 % where there is one.

Each trial opens three sessions of ONNX Runtime afresh: a chain of 33 equal convolutions, the same once more,
and a chain of 34. All three go through the benchmark's own rounds and verdicts. A false difference is one
between the first two; the third must be found slower. Fails with status 1 where a goal is missed.
"""

from __future__ import annotations

import json
import math
import random
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from tumorseg_benchmarks.latency.intervals import SAME_SPEED, SLOWER, SpeedUp
from tumorseg_benchmarks.latency.latency import SHORT_CALLS, Call, TimingPlan, measure, speed_up
from tumorseg_benchmarks.reports.report import SCHEMA, to_json
from tumorseg_benchmarks.variants.machine import load_average, machine_facts
from tumorseg_runtime.cli.terminal import say, say_text
from tumorseg_runtime.core.files import make_folder, write_text

LAYERS = 33  # one more is 3.03 % more work
CHANNELS, SIZE = 16, 24  # a call takes less than a millisecond on one core
TRIALS = 200
ROUNDS = 80
MOST_FALSE = 0.08  # share of comparisons of equals in which a difference may be called
LEAST_FOUND = 0.80  # share of slow-downs of 3 % that must be found


def chain(layers: int) -> bytes:
    """An ONNX file: so many equal 3x3 convolutions, each with a ReLU, on float32 (1, 16, 24, 24)."""
    import onnx

    random = np.random.default_rng(0)
    nodes, weights, name = [], [], "x"
    for index in range(layers):
        weight = random.standard_normal((CHANNELS, CHANNELS, 3, 3)) * math.sqrt(2 / (9 * CHANNELS))
        weights.append(onnx.numpy_helper.from_array(weight.astype(np.float32), f"w{index}"))
        nodes.append(onnx.helper.make_node("Conv", [name, f"w{index}"], [f"c{index}"], pads=[1] * 4))
        nodes.append(onnx.helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        name = f"r{index}"
    shape = (1, CHANNELS, SIZE, SIZE)
    ends = [onnx.helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, shape) for end in ("x", name)]
    graph = onnx.helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    opset = onnx.helper.make_opsetid("", 18)
    return bytes(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString())


def timed(file: bytes) -> Call:
    """A fresh session on one thread, as a call of the benchmark."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(1).standard_normal((1, CHANNELS, SIZE, SIZE)).astype(np.float32)

    def call(number: int) -> dict[str, int]:
        start = time.perf_counter_ns()
        session.run(None, {"x": image})
        return {"infer": time.perf_counter_ns() - start}

    return call


def trial(files: dict[str, bytes], rounds: int, seed: int) -> dict[str, SpeedUp]:
    """Speed-ups of the equal and of the slower chain against the first, by name."""
    names = list(files)
    calls = {name: timed(files[name]) for name in random.Random(seed).sample(names, len(names))}
    for name in calls:
        calls[name](0)
    plan = TimingPlan(rounds=rounds, seed=seed, settle_s=0)
    samples = measure(calls, plan, prime=True, calls_per_turn=SHORT_CALLS)
    return {name: speed_up(samples[names[0]], samples[name]) for name in names[1:]}


def summary(trials: list[dict[str, SpeedUp]]) -> dict[str, Any]:
    """Shares of right and wrong verdicts, and how far the medians lay."""
    equal, slower = ([one[name] for one in trials] for name in ("again", "slower"))
    stats = [math.log(one.median) for one in equal]
    widths = [math.log(one.high / one.low) for one in equal]
    false = sum(one.verdict != SAME_SPEED for one in equal) / len(trials)
    found = sum(one.verdict == SLOWER for one in slower) / len(trials)
    return {
        "trials": len(trials),
        "false_differences": false,
        "false_differences_without_margin": sum(not one.low <= 1 <= one.high for one in equal) / len(trials),
        "found": found,
        "called_faster": sum(one.median > 1 and one.verdict not in (SAME_SPEED, SLOWER) for one in slower),
        "median_of_equals": math.exp(float(np.median(stats))),
        "deviation_of_equals": float(np.std(stats)),
        "median_of_slower": math.exp(float(np.median([math.log(one.median) for one in slower]))),
        "median_width": float(np.median(widths)),
        "passed": false <= MOST_FALSE and found >= LEAST_FOUND,
    }


@click.command()
@click.option("--trials", default=TRIALS, show_default=True, type=click.IntRange(min=1))
@click.option("--rounds", default=ROUNDS, show_default=True, type=click.IntRange(min=8))
@click.option(
    "--out", default=Path("build/validation"), show_default=True, type=click.Path(path_type=Path),
    help="Folder for validation.json.",
)  # fmt: skip
def main(trials: int, rounds: int, out: Path) -> None:
    """Compare equals, and a network with 3 % more work, many times over; count the wrong verdicts."""
    make_folder(out)
    files = {"reference": chain(LAYERS), "again": chain(LAYERS), "slower": chain(LAYERS + 1)}
    before, start = load_average(), time.monotonic()
    done = []
    for seed in range(trials):
        done.append(trial(files, rounds, seed))
        if (seed + 1) % 20 == 0:
            say(f"{seed + 1} of {trials} trials, {time.monotonic() - start:.0f} s", err=True)
    found = summary(done)
    values = {
        "schema": SCHEMA,
        "kind": "validation",
        "machine": machine_facts(),
        "load_average": {"before": before, "after": load_average()},
        "plan": {"rounds": rounds, "calls_per_turn": SHORT_CALLS, "more_work": 1 / LAYERS},
        "seconds": round(time.monotonic() - start, 1),
        "summary": found,
        "trials": [{name: one.to_dict() for name, one in each.items()} for each in done],
    }
    write_text(out / "validation.json", to_json(values))
    say_text(json.dumps(found, indent=1))
    say(f"report: {out}/validation.json", err=True)
    if not found["passed"]:
        say(
            f"Error: {found['false_differences']:.1%} false differences and {found['found']:.1%} of the "
            f"slow-downs found, expected at most {MOST_FALSE:.0%} and at least {LEAST_FOUND:.0%}: "
            "run it on a quieter machine, or with more rounds",
            err=True,
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
