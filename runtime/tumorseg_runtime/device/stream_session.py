"""A session whose network runs on a GPU's stream: what TensorRT and ONNX Runtime share there."""

from __future__ import annotations

import abc
import contextlib
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError, InputError
from tumorseg_runtime.core.session import MASKS, InProcess, InputForm, SessionInfo
from tumorseg_runtime.device.cuda import Gpu, Pair
from tumorseg_runtime.device.tensor import interface_of

ALIGNMENT = 256  # bytes, of an address that a network reads
CLOSE_WAIT_S = 1.0  # for a call that may hang: what it holds then goes with it


class StreamSession(InProcess, abc.ABC):
    """A `Session` whose `enqueue` queues a batch on the stream of `gpu`. Its buffers grow to the largest
    batch that `infer` has seen, and are kept; calls wait for each other.

    `infer` also takes a tensor in device memory (`__cuda_array_interface__`), which is read where it lies. A
    batch below the smallest that the network takes is filled up with whatever the buffers hold.
    """

    def __init__(
        self, gpu: Gpu, contract: Contract, form: InputForm, info: SessionInfo, smallest: int = 1
    ) -> None:
        """smallest: batch that the network takes at least."""
        self.gpu, self.input, self.info, self.smallest = gpu, form, info, smallest
        self._in_shape = form.shape(contract)
        self._out_shape = (len(contract.classes), contract.height, contract.width)
        self._dtype = np.dtype(form.dtype)
        self._answer = np.dtype(np.uint8 if self.output == MASKS else np.float32)
        self._lock, self._closed = threading.Lock(), False
        self._in, self._out = Pair(gpu), Pair(gpu)

    @abc.abstractmethod
    def enqueue(self, count: int, source: int, target: int) -> None:
        """As `tumorseg_runtime.device.on_stream.OnStream`."""

    def served(self, count: int) -> None:
        """A batch of `count` was waited for."""

    @abc.abstractmethod
    def release(self) -> None:
        """Forget the network. The context is current."""

    def infer(self, batch: Any) -> npt.NDArray[Any]:
        """(N, C, H, W) of `input.dtype`, in host or device memory -> float32 logits, or uint8 masks,
        (N, K, H, W) on the host.

        Raises InputError for another form or a batch of a size that is not taken, BackendError where the
        library or the GPU fails.
        """
        with self._lock, self.gpu.current():
            if self._closed:
                raise BackendError(f"{self.info.backend} on {self.info.device} is closed: open it again")
            read = self._read_host if isinstance(batch, np.ndarray) else self._read_device
            address, count = read(batch)
            shape, fed = (count, *self._out_shape), max(count, self.smallest)
            nbytes = int(np.prod(shape)) * self._answer.itemsize
            self._out.require(nbytes // count * fed)
            self.enqueue(fed, address, self._out.device.pointer)
            self.gpu.download(self._out.host.pointer, self._out.device.pointer, nbytes)
            self.gpu.synchronise()
            self.served(fed)
            answer = self._out.host.array()[:nbytes].view(self._answer).reshape(shape)
            return np.array(answer)  # the pinned memory is written again by the next call

    def close(self) -> None:
        """Give network and buffers back, in the network's own context, and with the last of them the stream;
        not what a call holds that hangs, and nothing in a fork. Again: nothing."""
        if not self._lock.acquire(timeout=CLOSE_WAIT_S):
            return
        try:
            with contextlib.suppress(BackendError), self.gpu.current():
                if not self._closed:
                    self._closed = True
                    self.release()
                    self._in, self._out = Pair(self.gpu), Pair(self.gpu)
        finally:
            self._lock.release()

    def _read_host(self, batch: npt.NDArray[Any]) -> tuple[int, int]:
        """Bring a batch to the GPU: its address there, and its images."""
        self._require_form(batch.dtype, batch.shape, packed=True)
        self._require_in(len(batch))
        self._in.host.array()[: batch.nbytes].view(self._dtype).reshape(batch.shape)[...] = batch
        self.gpu.upload(self._in.device.pointer, self._in.host.pointer, batch.nbytes)
        return self._in.device.pointer, batch.shape[0]

    def _read_device(self, batch: Any) -> tuple[int, int]:
        """Wait for a batch that is in device memory: its address and images."""
        interface = interface_of(batch, "batch")
        dtype, shape = np.dtype(interface["typestr"]), tuple(interface["shape"])
        strides = interface.get("strides")
        packed = strides is None or tuple(strides) == _packed_strides(shape, dtype.itemsize)
        self._require_form(dtype, shape, packed=packed)
        address = self.gpu.wait_for(interface, "batch")
        if address % ALIGNMENT or shape[0] < self.smallest:
            self._require_in(shape[0])
            self.gpu.copy(self._in.device.pointer, address, int(np.prod(shape)) * dtype.itemsize)
            address = self._in.device.pointer
        return address, shape[0]

    def _require_in(self, count: int) -> None:
        self._in.require(max(count, self.smallest) * int(np.prod(self._in_shape)) * self._dtype.itemsize)

    def _require_form(self, dtype: np.dtype[Any], shape: tuple[int, ...], *, packed: bool) -> None:
        largest = self.input.max_batch
        fits = dtype == self._dtype and shape[1:] == self._in_shape and packed
        if not fits or shape[0] < 1 or (largest is not None and shape[0] > largest):
            raise InputError(
                f"batch is {dtype} {shape}{'' if packed else ' with gaps'}, {self.info.backend} takes "
                f"{self._dtype} (N, {', '.join(map(str, self._in_shape))}) without gaps, N from 1"
                f"{'' if largest is None else f' to {largest}'}: split it, or open another artefact"
            )


def _packed_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    return tuple(int(np.prod(shape[axis + 1 :])) * itemsize for axis in range(len(shape)))
