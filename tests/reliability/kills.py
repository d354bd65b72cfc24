"""kill -9 in the middle of each command, at calls that reach the disk and at any moment of its CPU time.

The commands run in forks of a process that has loaded the libraries, so that a kill costs no start.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from reliability.bundles import make_bundle, write_pictures
from reliability.row import Settings, Tally
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core import files
from tumorseg_runtime.core.errors import TumorsegError

EVENTS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree")
NETWORK = ("--arch", "unet", "--encoder", "resnet18", "--encoder-weights", "none", "--size", "64")
RECIPE = (
    "--recipe", "quick", "--epochs", "2", "--set", "crop=32", "--set", "small_epochs=1", "--report", "0",
)  # fmt: skip


def run_forked(
    arguments: list[str],
    folder: Path,
    *,
    at_event: int = 0,
    at_cpu_s: float = 0.0,
    around: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
) -> tuple[int, int, float]:
    """Run a command in a fork; its status (-9 where it was killed), its events below the folder, CPU seconds.

    at_event: the call on the disk, from 1, before which it is killed. at_cpu_s: or after so much of its time.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reader)
        _child(arguments, folder, at_event, at_cpu_s, around, writer)
    os.close(writer)
    _, status, usage = os.wait4(pid, 0)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    killed = os.WIFSIGNALED(status)
    if killed and os.WTERMSIG(status) not in (signal.SIGKILL, signal.SIGPROF):
        raise AssertionError(f"{arguments[0]} died of signal {os.WTERMSIG(status)}")
    code = -signal.SIGKILL if killed else os.WEXITSTATUS(status)
    return code, int(said or 0), usage.ru_utime + usage.ru_stime


def _child(
    arguments: list[str], folder: Path, at_event: int, at_cpu_s: float,
    around: Callable[[], contextlib.AbstractContextManager[object]], writer: int,
) -> None:  # fmt: skip
    from tumorseg_runtime.cli.main import cli

    seen = 0

    def count(event: str, values: tuple[object, ...]) -> None:
        nonlocal seen
        if event in EVENTS and str(values[0]).startswith(str(folder)):
            writes = event != "open" or (isinstance(values[2], int) and values[2] & (os.O_WRONLY | os.O_RDWR))
            seen += bool(writes)
            if writes and seen == at_event:
                os.kill(os.getpid(), signal.SIGKILL)

    code = 99
    try:
        null = os.open(os.devnull, os.O_RDWR)
        log = os.open(folder.with_name("said"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(null, 1)
        os.dup2(log, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        sys.addaudithook(count)
        files._tidied.clear()  # as in a process of its own
        if at_cpu_s:
            signal.signal(signal.SIGPROF, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_PROF, at_cpu_s)
        with around():
            cli.main(arguments, prog_name="tumorseg", standalone_mode=False)
        code = 0
    except TumorsegError as error:
        sys.stderr.write(f"error: {error}")
        code = error.exit_code
    except BaseException as error:  # noqa: BLE001  # the parent is told
        sys.stderr.write(f"{type(error).__name__}: {error}")
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
            os.write(writer, str(seen).encode())
        os._exit(code)


def killed(settings: Settings, tally: Tally) -> None:
    """Each phase is run once to its end, then killed at moments drawn from what it took."""
    import tumorseg_train.training.train  # noqa: F401  # loaded before the forks, used by none of ours here

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    work = settings.folder
    for name, make in (
        ("install", _install),
        ("predict", _predict),
        ("build", _build),
        ("train", _train),
        ("export", _export),
    ):
        folder = work / name
        folder.mkdir()
        _phase(settings, tally, name, folder, *make(work, folder))


Prepare = Callable[[Path], None]
Check = Callable[[Path, Tally, str], None]
Around = Callable[[], contextlib.AbstractContextManager[object]]


def _phase(
    settings: Settings, tally: Tally, name: str, folder: Path, prepare: Prepare,
    arguments: Callable[[Path], list[str]], check: Check, around: Around = contextlib.nullcontext,
) -> None:  # fmt: skip
    draw = settings.draw(f"kill {name}")
    live = folder / "live"
    live.mkdir()
    prepare(live)
    code, events, seconds = run_forked(arguments(live), live, around=around)
    said = live.with_name("said").read_text()
    tally.demand(code == 0, f"{name} without a kill: status {code}: {said[-300:]}")
    shutil.rmtree(live)
    for number in range(settings.count(3, 40)):
        live.mkdir()
        prepare(live)
        by_event = number % 2 == 0 or seconds < 0.1
        where = (
            {"at_event": draw.randint(1, max(1, events))}
            if by_event
            else {"at_cpu_s": draw.uniform(0.02, seconds)}
        )
        code, _, _ = run_forked(arguments(live), live, around=around, **where)
        tally.add(f"kills in {name}" if code == -signal.SIGKILL else f"{name} ended before the kill")
        try:
            check(live, tally, f"{name} killed {where}")
        except Exception as error:  # noqa: BLE001  # this is what is looked for
            tally.fault(f"{name} killed {where}: {type(error).__name__}: {error}")
        shutil.rmtree(live)
    tally.demand(tally.counts[f"kills in {name}"] > 0, f"{name} was never hit")


def _again(live: Path, what: str, *arguments: object, around: Around = contextlib.nullcontext) -> None:
    code, _, _ = run_forked([str(one) for one in arguments], live, around=around)
    if code:
        raise AssertionError(f"{what}: {live.with_name('said').read_text()[-300:]}")


def _install(work: Path, folder: Path) -> tuple[Prepare, Callable[[Path], list[str]], Check]:
    from tumorseg_runtime.deployment.store import install, open_active

    sources = [make_bundle(folder / f"source {n}", f"bundle {n}") for n in range(2)]
    digests = [Bundle.read_index(one).digest() for one in sources]

    def check(live: Path, tally: Tally, what: str) -> None:
        tally.demand(open_active(live / "store").digest() in digests, f"{what}: another bundle serves")
        _again(live, "install again", "install", live / "store", sources[1])
        tally.demand(
            open_active(live / "store").digest() == digests[1], f"{what}: it does not serve afterwards"
        )
        left = [p.name for p in (live / "store/bundles").iterdir() if p.name not in digests]
        tally.demand(not left, f"{what}: {left} is left")

    return (
        lambda live: install(live / "store", sources[0], test=lambda bundle: None) and None,
        lambda live: ["install", str(live / "store"), str(sources[1])],
        check,
    )


def _predict(work: Path, folder: Path) -> tuple[Prepare, Callable[[Path], list[str]], Check]:
    root, images = make_bundle(folder / "bundle"), write_pictures(folder / "images", 8)
    words = [str(root), str(images), "--overlays", "--probabilities"]
    reference = folder / "reference"
    reference.mkdir()
    run_forked(["predict", *words, "--out", str(reference)], reference)
    expected = _files(reference)

    def check(live: Path, tally: Tally, what: str) -> None:
        _again(live, "predict --resume", "predict", *words, "--out", live / "out", "--resume")
        tally.demand(_files(live / "out") == expected, f"{what}: other files than without a kill")

    return (lambda live: None, lambda live: ["predict", *words, "--out", str(live / "out")], check)


def _files(folder: Path) -> dict[str, bytes]:
    """Pictures by name; of the rest only the names, since it holds times."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() if p.suffix == ".png" else b"" for p in paths}


def _build(work: Path, folder: Path) -> tuple[Prepare, Callable[[Path], list[str]], Check, Around]:
    from fakes.mean_bundle import make_mean_bundle
    from fakes.tensorrt_device import that_builds
    from tumorseg_runtime.device.engines import latest_engine, read_engine

    bundle = make_mean_bundle(folder / "bundle")

    def words(live: Path) -> list[str]:
        return ["build", str(bundle.root), "--device-folder", str(live / "device"), "--batch", "1,2,4"]

    def check(live: Path, tally: Tally, what: str) -> None:
        if (live / "device").is_dir() and (engine := latest_engine(live / "device", bundle, "fp16")):
            read_engine(engine)
        _again(live, "build again", *words(live), around=that_builds)
        left = [p.name for p in (live / "device").iterdir() if p.name.endswith(".part")]
        tally.demand(not left, f"{what}: {left} is left")

    return (lambda live: None, words, check, that_builds)


def _data(work: Path) -> Path:
    data = work / "data"
    if not data.exists():
        from tumorseg_train.data.phantoms import write_phantoms

        write_phantoms(data, brain=14, breast=24, seed=3)
    return data


def _train(work: Path, folder: Path) -> tuple[Prepare, Callable[[Path], list[str]], Check]:
    from tumorseg_train.networks.run import INDEX, Run

    data = _data(work)

    def words(live: Path) -> list[str]:
        return ["train", str(data), "--out", str(live / "run"), *NETWORK, *RECIPE]

    def check(live: Path, tally: Tally, what: str) -> None:
        run = live / "run"
        if not (run / INDEX).exists():
            way = (
                ("train", "--resume", run, "--report", "0") if (run / "resume.ckpt").exists() else words(live)
            )
            tally.add("trainings resumed" if "--resume" in way else "trainings begun again")
            _again(live, " ".join(map(str, way[:2])), *way)
        Run.open(run).model()

    return (lambda live: None, words, check)


def _export(work: Path, folder: Path) -> tuple[Prepare, Callable[[Path], list[str]], Check]:
    data, run = _data(work), folder / "run"
    code, _, _ = run_forked(["train", str(data), "--out", str(run), *NETWORK, *RECIPE], run)
    assert code == 0, folder.joinpath("said").read_text()[-300:]

    def words(live: Path) -> list[str]:
        return ["export", str(run), "--out", str(live / "bundle"), "--targets", "onnx", "--golden", "3"]

    def check(live: Path, tally: Tally, what: str) -> None:
        if (live / "bundle").exists():
            Bundle.open(live / "bundle")
        _again(live, "export again", *words(live))
        Bundle.open(live / "bundle")
        left = [p.name for p in live.iterdir() if p.name != "bundle"]
        tally.demand(not left, f"{what}: {left} is left")

    def prepare(live: Path) -> None:
        make_bundle(live / "bundle")  # the one that stands there until the new one is complete

    return (prepare, words, check)
