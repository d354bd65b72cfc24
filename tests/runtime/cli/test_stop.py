"""SIGTERM and SIGINT: the exit status, and one line that says how to go on."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tumorseg_runtime.cli.options import spoken
from tumorseg_runtime.core.stop import AGAIN, Stopped, postponed, resumable, stoppable
from tumorseg_runtime.images.read import write_png

MAIN = "from tumorseg_runtime.cli.main import main; main()"
STATUS = [(signal.SIGTERM, 143), (signal.SIGINT, 130)]


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize(("number", "status"), STATUS[:1])
def test_predict_stops_and_names_the_command_that_goes_on(
    small_bundle: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    images, out = tmp_path / "in", tmp_path / "out"
    images.mkdir()
    write_png(images / "0.png", np.full((1500, 1500), 40, np.uint8))
    for index in range(1, 60):
        (images / f"{index}.png").hardlink_to(images / "0.png")
    command = [sys.executable, "-u", "-c", MAIN, "predict", str(small_bundle), str(images), "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()  # the first image is done
        process.send_signal(number)
        errors = process.stderr.read()
    assert process.returncode == status
    (line,) = errors.splitlines()
    assert line.startswith(f"stopped by {number.name}: go on with what is left: tumorseg predict ")
    assert line.endswith(f"--out {out} --resume")
    done = len((out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()) - 1
    assert 1 <= done < 60
    resumed = subprocess.run([*command, "--resume", "--quiet"], capture_output=True, text=True, check=True)
    assert resumed.stdout.startswith("60 images -> ")


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize(("number", "status"), STATUS)
def test_any_command_ends_with_the_status_and_the_same_advice(number: signal.Signals, status: int) -> None:
    wait = "import time; import click; from tumorseg_runtime.cli import main as cli; "
    wait += "cli.cli.main = lambda **_: (print('there', flush=True), time.sleep(60)); cli.main()"
    with subprocess.Popen(
        [sys.executable, "-c", wait], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(number)
        process.send_signal(number)  # `timeout` does that
        errors = process.stderr.read()
    assert process.returncode == status
    assert errors == f"stopped by {number.name}: {AGAIN}\n"


@pytest.fixture
def handler() -> Iterator[Any]:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    yield before[0]
    signal.signal(signal.SIGTERM, before[0])
    signal.signal(signal.SIGINT, before[1])


def test_a_signal_is_raised_once_with_the_advice_of_the_block(handler: Any) -> None:
    with pytest.raises(Stopped) as stopped, stoppable(), resumable(lambda: "so"):
        signal.raise_signal(signal.SIGTERM)
    assert (stopped.value.exit_code, stopped.value.hint) == (143, "so")
    signal.raise_signal(signal.SIGTERM)  # right after the first: nothing


def test_handlers_come_back_and_what_is_ignored_stays_so(handler: Any) -> None:
    with stoppable():
        assert signal.getsignal(signal.SIGTERM) is not handler
    assert signal.getsignal(signal.SIGTERM) is handler
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with stoppable():
        signal.raise_signal(signal.SIGTERM)


def test_a_signal_that_would_be_swallowed_is_postponed(handler: Any) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def swallowing() -> None:
        with postponed() as stopping:
            assert not stopping()
            with contextlib.suppress(BaseException):  # as TensorRT does
                signal.raise_signal(signal.SIGINT)
            assert stopping()
            raise ValueError("cancelled")  # a signal says more than what it led to

    with pytest.raises(KeyboardInterrupt):
        swallowing()
    with pytest.raises(Stopped), stoppable():
        swallowing()


def test_a_command_is_spoken_as_the_user_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [".venv/bin/tumorseg", "train"])
    monkeypatch.delenv("MAKELEVEL", raising=False)
    assert spoken("train", "--resume", Path("a b")) == "tumorseg train --resume 'a b'"
    monkeypatch.setenv("MAKELEVEL", "1")
    assert spoken("train") == ".venv/bin/tumorseg train"
