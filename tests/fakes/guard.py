"""Python code in a process that may open no connection and touch no file elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

GUARD = """
import os, sys

FORBIDDEN = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "os.system")

def guard(event, arguments):
    words = " ".join(map(str, arguments[1])).split() if event == "subprocess.Popen" else []
    if event in FORBIDDEN or {os.path.basename(word) for word in words} & {"pip", "pip3"}:
        with open(os.environ["GUARD_SEEN"], "a") as file:
            print(event, arguments, file=file)
        raise PermissionError(f"{event} is forbidden")

sys.addaudithook(guard)
"""


def guarded_in(tmp_path: Path) -> Callable[..., list[str]]:
    """Function that runs Python code with arguments in a fresh process and returns what it did that a guard
    forbids: a connection, a look-up of a name, a shell, pip, a file in the user's home folder or beside it.

    Python processes that it starts are guarded, too. What is forbidden fails there.
    """
    guard, home, work, seen = (tmp_path / f"guard-{name}" for name in ("code", "home", "work", "seen"))
    for folder in (guard, home, work):
        folder.mkdir()
    (guard / "sitecustomize.py").write_text(GUARD)

    def run(code: str, *arguments: object) -> list[str]:
        # Telemetry clients keep quiet where CI is set; a user's machine has no such variable.
        inherited = {name: value for name, value in os.environ.items() if name != "CI"}
        path = os.pathsep.join(filter(None, (str(guard), os.environ.get("PYTHONPATH"))))
        variables = {**inherited, "PYTHONPATH": path, "HOME": str(home), "GUARD_SEEN": str(seen)}
        command = [sys.executable, "-c", code, *map(str, arguments)]
        done = subprocess.run(
            command, cwd=work, env=variables, capture_output=True, text=True, timeout=300, check=False
        )
        forbidden = seen.read_text().splitlines() if seen.exists() else []
        forbidden += [str(path) for folder in (home, work) for path in folder.rglob("*")]
        assert forbidden or done.returncode == 0, done.stderr
        return forbidden

    return run
