"""The process of one stage: `python -m tumorseg_benchmarks.gpu_evidence.child STAGE RECORD [...]`.

A process of its own, since an error that sticks to the CUDA context, or a crash in a library, ends no other
stage.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

# Before anything that would ask the network.
OFFLINE = {"HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1", "ORT_DISABLE_TELEMETRY": "1"}
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def forbid_network() -> None:
    """Every connection out of this machine is an error from here on, and libraries are told before."""
    os.environ.update(OFFLINE)

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect":
            one, address = arguments
            local = one.family == socket.AF_UNIX or str(address[0]) in LOOPBACK
        elif event == "socket.getaddrinfo":
            local = arguments[0] is None or str(arguments[0]) in LOOPBACK
        else:
            return
        if not local:
            raise ConnectionError(
                f"{event} to {arguments[-1]} under --offline, expected no use of the network"
            )

    sys.addaudithook(refuse)


def main() -> None:
    """Run the stage and leave its record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("stage")
    parser.add_argument("record", type=Path)
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--offline", action="store_true")
    parser.add_argument("--bundle", type=Path)
    values = parser.parse_args()
    if values.offline:
        forbid_network()
    from tumorseg_benchmarks.gpu_evidence.stage import Options, run_stage, write_record
    from tumorseg_benchmarks.gpu_evidence.stages import STAGES
    from tumorseg_runtime.cli.terminal import say

    def log(line: str) -> None:
        say(line, err=True)

    stage = STAGES[values.stage]
    with tempfile.TemporaryDirectory(prefix="tumorseg-evidence-") as folder:
        options = Options(values.dry, values.bundle, Path(folder))
        found = run_stage(values.stage, stage.needs, lambda *both: stage.load()(*both), options, log)
    write_record(values.record, {**found, "offline": values.offline})


if __name__ == "__main__":
    main()
