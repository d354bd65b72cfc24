"""What TensorRT says while it builds, loads and runs: kept instead of printed, and told in one line."""

from __future__ import annotations

from typing import Any

# In what TensorRT logs, in lower case and without blanks.
MEMORY_SIGNS = ("outofmemory", "memoryallocation", "insufficientmemory", "couldnotbeallocated")


def collecting_logger(trt: Any) -> Any:
    """A logger for TensorRT that keeps errors as `errors`, one string each, and prints nothing."""

    class CollectingLogger(trt.ILogger):  # type: ignore[misc]  # TensorRT's class, which is Any here
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # not super(): a bound class asks for its own constructor
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= int(trt.ILogger.Severity.ERROR):
                self.errors.append(message)

    return CollectingLogger()


def out_of_memory(logger: Any) -> bool:
    """True where TensorRT complained about memory."""
    text = " ".join(logger.errors).lower().replace(" ", "")
    return any(sign in text for sign in MEMORY_SIGNS)


def why(logger: Any) -> str:
    """The last error in one line, and that memory ran out where it did."""
    last = " ".join(logger.errors[-1].split()) if logger.errors else "it gave no reason"
    return f"out of memory: {last}" if out_of_memory(logger) else last


def remedy(logger: Any) -> str:
    """What to do when an engine does not load."""
    if out_of_memory(logger):
        return "end other programs on the GPU, or build with a smaller --batch"
    return "build the engine again"
