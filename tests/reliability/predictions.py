"""Many predictions in many threads: each its right mask, and no memory kept."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from reliability.bundles import choices, make_bundle, pictures
from reliability.row import NotPossibleError, Settings, Tally
from tumorseg_runtime.backends import why_unavailable
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import BackendError
from tumorseg_runtime.inference.prediction import Prediction
from tumorseg_runtime.inference.segmenter import Segmenter

THREADS, SIZES = 8, 24
GROWTH_MB = 8.0  # of a process whose allocators have filled their pools
DRIFT_MB = 1.0  # per 1,000 predictions


def resident_mb(pid: int | str = "self") -> float:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1000
    return 0.0


def digest(prediction: Prediction) -> str:
    return hashlib.sha256(prediction.masks.tobytes()).hexdigest()


def many(settings: Settings, tally: Tally) -> None:
    """All backends, mixed sizes, eight threads; each mask is compared with that of one image alone."""
    root = make_bundle(settings.folder / "bundle")
    images = pictures(SIZES)
    backends = choices(Bundle.open(root))
    each = -(-settings.count(4000, 50_000) // len(backends))
    for backend, precision in backends:
        with Segmenter.open(root, backend=backend, precision=precision, threads=1) as segmenter:
            expected = [digest(segmenter.predict(image)) for image in images]

            def one(number: int) -> bool:
                return digest(segmenter.predict(images[number % SIZES])) == expected[number % SIZES]  # noqa: B023

            with ThreadPoolExecutor(THREADS) as pool:
                wrong = sum(not same for same in pool.map(one, range(each // 4)))
                gc.collect()
                before = resident_mb()
                wrong += sum(not same for same in pool.map(one, range(each - each // 4)))
            gc.collect()
            grown = resident_mb() - before
        tally.add("predictions", each)
        tally.add(f"wrong under {backend} {precision}", wrong) if wrong else None
        tally.demand(not wrong, f"{backend} {precision}: {wrong} of {each} masks differ")
        allowed = GROWTH_MB + DRIFT_MB * each / 1000
        tally.demand(grown <= allowed, f"{backend} {precision}: memory grew by {grown:.1f} MB in {each}")
        tally.counts["kB grown at most"] = max(tally.counts["kB grown at most"], round(grown * 1000))
    tally.add("backends and precisions", len(backends))
    tally.add("threads", THREADS)


def worker(settings: Settings, tally: Tally) -> None:
    """MNN's process is killed or stopped at any moment: one error, then the right masks again."""
    if reason := why_unavailable("mnn", "cpu"):
        raise NotPossibleError(reason)
    root, draw = make_bundle(settings.folder / "bundle"), settings.draw("worker")
    image = pictures(1)[0]
    with Segmenter.open(root, backend="mnn") as segmenter:
        expected = digest(segmenter.predict(image))
        for number in range(settings.count(10, 200)):
            number_ = draw.choice((signal.SIGKILL, signal.SIGSTOP))
            children = [int(pid) for pid in _children()]
            delay = draw.uniform(0, 0.02)

            def strike(delay: float = delay, sign: int = number_, pids: list[int] = children) -> None:
                time.sleep(delay)
                for pid in pids:
                    try:
                        os.kill(pid, sign)
                    except ProcessLookupError:
                        continue

            thread = threading.Thread(target=strike)
            thread.start()
            tally.add(f"times {signal.Signals(number_).name}")
            for _ in range(5):
                try:
                    found = digest(segmenter.predict(image, timeout_s=1.0))
                except BackendError as error:
                    tally.add("predictions refused in one line")
                    tally.demand("\n" not in str(error), f"{number}: {error}")
                else:
                    tally.add("right predictions")
                    tally.demand(found == expected, f"{number}: another mask")
            thread.join()
            for _ in range(3):  # the blow may come after the last prediction: one more may fail
                try:
                    found = digest(segmenter.predict(image, timeout_s=20.0))
                    break
                except BackendError:
                    found = ""
            tally.demand(found == expected, f"{number}: it does not serve again")
    time.sleep(0.5)
    tally.demand(not _children(), "a process is left when the segmenter is closed")


def _children() -> list[str]:
    children = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
            children += (task / "children").read_text().split()
    return children
