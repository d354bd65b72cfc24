"""A row of the table: what is done, how often, and what was found."""

from __future__ import annotations

import collections
import dataclasses
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from fuzz.reader import unfit_message
from tumorseg_runtime.core.errors import TumorsegError

PASSED, FAILED, NOT_POSSIBLE = "passed", "failed", "not possible here"
ROOT = Path(__file__).parents[2]
CLI = "import sys; sys.argv[0] = 'tumorseg'; from tumorseg_runtime.cli.main import main; main()"


class NotPossibleError(Exception):
    """This machine cannot show it: the reason."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """long: whether the long form's counts are taken, times `scale`. folder: for scratch, empty."""

    long: bool
    seed: int
    scale: float
    folder: Path

    def count(self, quick: int, long: int) -> int:
        return max(1, round((long if self.long else quick) * self.scale))

    def draw(self, about: str) -> random.Random:
        return random.Random(f"{about} {self.seed}")


@dataclasses.dataclass
class Tally:
    """counts: of what came out, in words. faults: what must not have happened, one line each."""

    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    faults: list[str] = dataclasses.field(default_factory=list)

    def add(self, what: str, number: int = 1) -> None:
        self.counts[what] += number

    def fault(self, line: str) -> None:
        self.faults.append(" ".join(line.split())[:600])

    def demand(self, right: bool, line: str) -> None:
        if not right:
            self.fault(line)

    def attempt(self, what: str, use: Callable[[], object]) -> bool:
        """True where it ends well; one of our errors is counted as refused, all else is a fault."""
        try:
            use()
        except TumorsegError as error:
            self.add("refused")
            if why := unfit_message(str(error)):
                self.fault(f"{what}: {why}")
        except Exception as error:  # noqa: BLE001  # this is what is looked for
            self.fault(f"{what}: {type(error).__name__}: {error}")
        else:
            self.add("accepted")
            return True
        return False

    def ended(self, what: str, done: subprocess.CompletedProcess[str]) -> bool:
        """True where a command ended well; an exit status of ours with a line is counted as refused."""
        if done.returncode == 0:
            self.add("accepted")
            return True
        last = (done.stderr.strip().splitlines() or [""])[-1]
        if done.returncode not in (1, 2) or "Traceback" in done.stderr or not last:
            self.fault(f"{what}: exit status {done.returncode}: {last}")
        else:
            self.add("refused")
        return False


def tumorseg(
    *arguments: object, before: tuple[str, ...] = (), environment: dict[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """The command line in a process of its own. before: what the process starts under, such as strace."""
    return subprocess.run(
        [*before, sys.executable, "-c", CLI, *map(str, arguments)],
        capture_output=True, text=True, errors="replace", timeout=1800, check=False, cwd=cwd,
        env=os.environ if environment is None else environment,
    )  # fmt: skip
