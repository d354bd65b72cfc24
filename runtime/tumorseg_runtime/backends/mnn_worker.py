"""The child process of the MNN backend: numpy, MNN and this file, nothing else of the package.

It is run by `tumorseg_runtime.backends.worker`, which describes the messages. A request is one image, float32
(C, H, W) as bytes, the answer its logits, float32 (K, H, W) as bytes.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import numpy.typing as npt

WINOGRAD_LEVEL = 3  # MNN's number of this hint; the lowest level is 1
GRACE_S = 10  # the parent's limit comes first
PARENT_CHECK_S = 5.0


class MnnNetwork:
    """One network on MNN's interpreter, on the CPU in FP32."""

    def __init__(
        self, file: str, threads: int, winograd_level: int | None, shapes: dict[str, list[int]]
    ) -> None:
        """shapes: of 'image' and 'logits', which must be the file's only input and output."""
        import MNN

        self._mnn = MNN
        self._interpreter = MNN.Interpreter(file)
        if winograd_level is not None:
            self._interpreter.setSessionHint(WINOGRAD_LEVEL, winograd_level)
        self._session = self._interpreter.createSession(
            {"backend": "CPU", "numThread": threads, "precision": "high"}
        )
        sides = {
            **self._interpreter.getSessionInputAll(self._session),
            **self._interpreter.getSessionOutputAll(self._session),
        }
        got = {name: list(tensor.getShape()) for name, tensor in sides.items()}
        if got != shapes:
            raise ValueError(f"the file takes and gives {got}, expected {shapes}")
        self._image, self._logits = sides["image"], sides["logits"]
        self._shapes = {name: tuple(shape) for name, shape in shapes.items()}

    def infer(self, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32 (1, C, H, W) -> float32 (1, K, H, W)."""
        self._image.copyFrom(self._tensor(image))
        status = self._interpreter.runSession(self._session)
        if status != 0:
            raise RuntimeError(f"MNN's runSession gave status {status}")
        host = self._tensor(np.empty(self._shapes["logits"], np.float32))
        self._logits.copyToHostTensor(host)
        # A copy, made while `host` lives: getNumpyData looks at its memory without holding it.
        return np.array(host.getNumpyData(), np.float32)

    def _tensor(self, array: npt.NDArray[np.float32]) -> Any:
        kind, order = self._mnn.Halide_Type_Float, self._mnn.Tensor_DimensionType_Caffe  # NCHW
        return self._mnn.Tensor(array.shape, kind, array, order)


def main(descriptor: int, parent: int) -> None:
    """Serve the parent until it closes its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    connection = Connection(descriptor)
    try:
        serve(connection, parent)
    except (EOFError, ConnectionError):
        sys.exit(0)  # the parent closed its end, or is gone


def serve(connection: Connection, parent: int) -> None:
    """Load the network of the setup, then answer requests."""
    setup = json.loads(connection.recv_bytes())
    shapes, limit_s = setup["shapes"], setup["limit_s"]
    try:
        network = MnnNetwork(setup["file"], setup["threads"], setup["winograd_level"], shapes)
        network.infer(np.zeros(shapes["image"], np.float32))
        facts = {"versions": {"MNN": str(network._mnn.version())}}
    except Exception as error:  # noqa: BLE001  # MNN raises Exception itself; the parent reports it
        connection.send_bytes(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        return
    connection.send_bytes(json.dumps(facts).encode())
    while True:
        # A fork of the parent can keep the pair of sockets open after the parent's end.
        while not connection.poll(PARENT_CHECK_S):
            if os.getppid() != parent:
                return
        request = connection.recv_bytes()
        # MNN holds the GIL: only the kernel's clock ends a computation that hangs after the parent is gone.
        signal.alarm(math.ceil(limit_s) + GRACE_S)
        try:
            image = np.frombuffer(request, np.float32).reshape(shapes["image"])
            answer = network.infer(image).tobytes()
        except Exception as error:  # noqa: BLE001  # MNN raises Exception itself; the parent reports it
            connection.send_bytes(f"{type(error).__name__}: {error}".encode())
            continue
        finally:
            signal.alarm(0)
        connection.send_bytes(b"")
        connection.send_bytes(answer)
