"""`tumorseg predict --engine ray`: the files of a run, spread over the workers of a Ray cluster by Ray Data.

    log of the run <- the driver, which alone writes it, in the files' order
                        <- Ray Data: a row is a handful of files
                             -> workers, an actor with one Segmenter each, which write pictures into OUT

What a dead worker had in hand is done again: its pictures come out the same under the same names, and its
lines were never taken. So nothing is lost, and nothing stands in the log twice.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, TypeVar

from tumorseg_runtime.core.errors import BackendError, TumorsegError
from tumorseg_runtime.core.files import write_text
from tumorseg_runtime.core.stop import SIGNALS
from tumorseg_runtime.outputs.worker import Job, Task, Worker
from tumorseg_runtime.outputs.writer import Written

FILES_OF_A_ROW, ROWS_OF_AN_ACTOR = 16, 8  # most of a row; of few files every actor still gets some rows
MOST_BLOCKS = 4096  # of rows, each of which is a task of Ray's
T = TypeVar("T")


class Actor:
    """A worker as Ray Data calls it. What is wrong with it comes back as a row, in one line."""

    def __init__(self, job: Any) -> None:
        """job: reference to a Job in Ray's object store."""
        import ray

        self._worker: Worker | None = None
        self._fault = ""
        try:
            self._worker = Worker(ray.get(job))
        except TumorsegError as error:
            self._fault = str(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Rows of tasks in, rows of results out."""
        answers = []
        for number, tasks in map(pickle.loads, batch["row"]):
            written = self._worker.row(number, tasks) if self._worker else self._fault
            answers.append(pickle.dumps((number, written)))
        return {"row": answers}


def results_on_ray(
    job: Job, tasks: Sequence[Task], workers: int | None, log: Callable[[str], None]
) -> Generator[Written, None, None]:
    """Results of all tasks, those of a file together, in order. workers: most actors; None for what fits.

    Ray starts a worker that died again, as soon as there is room for it, and gives it what it had in hand.
    Raises BackendError where a worker cannot serve, or Ray gives up.
    """
    if not tasks:
        return
    with _connected() as ray, _marked(job):
        actors = _actors(ray, job, workers)
        size = min(FILES_OF_A_ROW, max(1, len(tasks) // (ROWS_OF_AN_ACTOR * actors)))
        rows = [*enumerate(tasks[start : start + size] for start in range(0, len(tasks), size))]
        log(f"{len(tasks)} files in {len(rows)} rows for {actors} workers")
        done: set[int] = set()
        answers = _answers(ray, job, rows, actors)
        try:
            while (answer := _quietly(answers)) is not None:
                number, written = answer
                if isinstance(written, str):
                    raise BackendError(written)
                if number not in done:
                    done.add(number)
                    yield from written
        except ray.exceptions.RayError as error:
            raise BackendError(
                f"the Ray cluster gave up ({_first_line(error)}), expected it to start workers again: "
                "look at its logs, then go on with --resume"
            ) from error


def _answers(
    ray: Any, job: Job, rows: Sequence[tuple[int, Sequence[Task]]], actors: int
) -> Iterator[tuple[int, list[Written] | str]]:
    """The rows through a pool of actors, in order."""
    items = [{"row": pickle.dumps(row)} for row in rows]
    dataset = ray.data.from_items(items, override_num_blocks=min(len(rows), MOST_BLOCKS))
    answers = dataset.map_batches(
        Actor, fn_constructor_args=[ray.put(job)], batch_size=1, batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=actors), num_cpus=job.opening["threads"],
    )  # fmt: skip
    for answer in answers.iter_rows():
        yield pickle.loads(answer["row"])


def _quietly(answers: Iterator[T]) -> T | None:
    """The next one, None behind the last. What Ray prints meanwhile goes to standard error: standard output
    is the result's."""
    with contextlib.redirect_stdout(sys.stderr):
        return next(answers, None)


def _actors(ray: Any, job: Job, workers: int | None) -> int:
    """How many actors the cluster has room for, at most `workers`."""
    cores, threads = ray.cluster_resources().get("CPU", 0), job.opening["threads"]
    room = int(cores // threads)
    if room < 1:
        raise BackendError(
            f"the Ray cluster has {cores:g} CPUs, expected {threads} or more (--threads): start workers"
        )
    return min(room, workers or room)


@contextlib.contextmanager
def _connected() -> Iterator[Any]:
    """Ray on the cluster that RAY_ADDRESS names, else on one of this machine that ends with the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers of the run
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise BackendError(
            f"--engine ray needs {error.name}, which is not installed: pip install 'tumorseg[ray]'"
        ) from error
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    address = os.environ.get("RAY_ADDRESS")
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            ray.init(address="local", include_dashboard=False, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise BackendError(
            f"no Ray cluster at {address or 'this machine'} ({_first_line(error)}): start one (ray start) "
            "or name it in RAY_ADDRESS"
        ) from error
    try:
        for number, handler in before.items():  # Ray has put its own in place of ours
            signal.signal(number, handler)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = context.print_on_execution_start = False
        yield ray
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _marked(job: Job) -> Iterator[None]:
    """A file in OUT by which workers know the folder; it goes with what they noted beside it."""
    write_text(job.out / job.token, "")
    try:
        yield
    finally:
        for path in job.out.glob(f"{job.token}*"):
            path.unlink(missing_ok=True)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
