"""Where the nodes of a network really ran, by ONNX Runtime's own profile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tumorseg_runtime.core.errors import BackendError
from tumorseg_runtime.core.records import Format
from tumorseg_runtime.core.text import first_line

if TYPE_CHECKING:
    import onnxruntime

DTYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}
_PROFILE = Format("profile", "install another version of onnxruntime", error=BackendError)


def nodes_elsewhere(session: onnxruntime.InferenceSession, provider: str) -> list[str]:
    """Run a session, which was opened with profiling, on zeros: 'name (provider)' of each node that ran on
    another provider than this. Ends the profiling; raises BackendError where no node was seen at all."""
    (taken,) = session.get_inputs()
    sizes = [size if isinstance(size, int) else 1 for size in taken.shape]
    try:
        session.run(None, {taken.name: np.zeros(sizes, DTYPES.get(taken.type, np.float32))})
    except Exception as error:  # onnxruntime's exceptions share no public base class
        raise BackendError(
            f"onnxruntime fails on {provider} with a first batch of {taken.type} {sizes} "
            f"({first_line(error)}): check the device, or export the bundle again"
        ) from error
    events = _PROFILE.read(Path(session.end_profiling()), list[dict[str, Any]])
    ran = {
        str(event["name"]): str(event["args"]["provider"])
        for event in events
        if event.get("cat") == "Node" and event.get("args", {}).get("provider")
    }
    if not ran:
        raise BackendError(
            f"onnxruntime's profile names no node, expected those of the network on {provider}: "
            "install another version of onnxruntime"
        )
    return [f"{name} ({got})" for name, got in ran.items() if got != provider]
