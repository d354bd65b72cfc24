"""Runs one function on the null GPU, in a process of its own (`floor.Floor.call` starts it)."""

from __future__ import annotations

import faulthandler
import gc
import pickle
import sys
import traceback
from pathlib import Path

from gpu_null.null import Null


def main(request: Path, answer: Path) -> None:
    """Call what the request names, and write value, error, counts, trace and violations."""
    kernels, function, arguments, options = pickle.loads(request.read_bytes())
    null = Null()
    if kernels:
        null.load_kernels(kernels)
    null.reset()
    value, error, text = None, None, ""
    try:
        value = function(*arguments, **options)
    except Exception as caught:  # noqa: BLE001  # whatever it is, the test's process raises it again
        error, text = caught.with_traceback(None), traceback.format_exc()
    gc.collect()
    whole = (value, error, text, null.counts(), null.trace(), null.violations())
    answer.write_bytes(pickle.dumps(whole))


if __name__ == "__main__":
    faulthandler.enable()
    main(*map(Path, sys.argv[1:]))
