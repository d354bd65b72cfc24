# ruff: noqa: T201
"""A Ray cluster on this machine, machines of one core each, and `tumorseg predict --engine ray` on it.

    build/scale/ray/bin/python tests/scale/ray_run.py BUNDLE FILES --out OUT --machines 2 [--kill node]

What is printed: seconds of the command, and from the first to the last line of its log. --kill ends a
worker's process or a whole machine, by SIGKILL, when --at files are done.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # of a busy machine
os.environ.setdefault("RAY_agent_register_timeout_ms", "120000")
os.environ.setdefault("RAY_gcs_server_request_timeout_seconds", "120")

from ray.cluster_utils import Cluster

COMMAND = [sys.executable, "-c", "from tumorseg_runtime.cli.main import main; main()"]
PAUSE_S = 0.05
HEAD = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}


def children(parents: set[int]) -> dict[int, str]:
    """Processes whose parent is one of these, and their names."""
    found = {}
    for path in Path("/proc").iterdir():
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if path.name.isdigit() and parent in parents:
                found[int(path.name)] = (path / "cmdline").read_text().replace("\0", " ")
        except (OSError, ValueError):
            continue
    return found


def kill(cluster: Cluster, nodes: list, what: str) -> str:
    """End a worker's process, or a machine with all that runs on it."""
    if what == "node":
        cluster.remove_node(nodes[0], allow_graceful=False)
        return "a machine"
    raylets = {node.all_processes["raylet"][0].process.pid for node in nodes}
    actors = {pid: name for pid, name in children(raylets).items() if "MapWorker" in name}
    pid = min(actors)
    os.kill(pid, signal.SIGKILL)
    return f"process {pid}: {actors[pid]}"


def machine(**options: int) -> dict:
    """Arguments of a machine whose agents have ports from the start: a raylet waits half a minute for others,
    which is too little where a machine is busy."""
    names = (
        "metrics_agent_port",
        "metrics_export_port",
        "dashboard_agent_listen_port",
        "runtime_env_agent_port",
    )
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in names]
        for one in sockets:
            one.bind(("", 0))
        return {**dict(zip(names, (one.getsockname()[1] for one in sockets), strict=True)), **options}


def lines(log: Path) -> int:
    return log.read_bytes().count(b"\n") - 1 if log.exists() else -1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--machines", type=int, default=2)
    parser.add_argument("--kill", choices=("process", "node"))
    parser.add_argument("--at", type=int, default=20, help="lines of the log, when to kill")
    parser.add_argument("--json", action="store_true")
    options, further = parser.parse_known_args()
    cluster = Cluster(initialize_head=True, head_node_args=machine(num_cpus=0, **HEAD))
    nodes = [
        cluster.add_node(**machine(num_cpus=1, object_store_memory=100 * 2**20))
        for _ in range(options.machines)
    ]
    killed = None
    try:
        environment = {**os.environ, "RAY_ADDRESS": cluster.address}
        command = [*COMMAND, "predict", options.bundle, *options.files, "--out", str(options.out)]
        start = time.monotonic()
        running = subprocess.Popen(
            [*command, "--engine", "ray", *further], env=environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        log, first, last, count = options.out / "predictions.jsonl", 0.0, 0.0, 0
        while running.poll() is None:
            time.sleep(PAUSE_S)
            now = lines(log)
            if now > count:
                first, last, count = first or time.monotonic(), time.monotonic(), now
                begun = locals().setdefault("begun", now)
            if options.kill and killed is None and now >= options.at:
                killed = kill(cluster, nodes, options.kill)
        whole = time.monotonic() - start
        said = running.communicate()
    finally:
        cluster.shutdown()
    values = {
        "status": running.returncode, "seconds": round(whole, 2), "streaming_s": round(last - first, 2),
        "streamed": count - begun if count else 0, "killed": killed, "stdout": said[0], "stderr": said[1],
    }  # fmt: skip
    print(json.dumps(values, indent=2) if options.json else "\n".join(f"{k}: {v}" for k, v in values.items()))


if __name__ == "__main__":
    main()
