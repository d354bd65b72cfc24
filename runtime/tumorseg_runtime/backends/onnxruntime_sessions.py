"""Sessions on ONNX Runtime: from numpy to numpy, and on a GPU's stream by IO binding.

On the stream nothing of ONNX Runtime's waits: its kernels run on the stream of `Gpu` (`user_compute_stream`),
it reads and writes at the addresses that it is given, and it does not synchronise at the end of a run.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError
from tumorseg_runtime.core.session import DEVICE, HOST, LOGITS, STREAM, InProcess, InputForm, SessionInfo
from tumorseg_runtime.device.cuda import Gpu
from tumorseg_runtime.device.stream_session import StreamSession

if TYPE_CHECKING:
    import onnxruntime

NO_WAIT = "disable_synchronize_execution_providers"  # an option of a run


class OnnxRuntimeSession(InProcess):
    """A `Session` on one ONNX file and one execution provider."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        info: SessionInfo,
        form: InputForm | None = None,
        output: str = LOGITS,
    ) -> None:
        """form: float32 tensors, where it is None. output: LOGITS or MASKS, which the file gives."""
        self._session = session
        self._input_name = session.get_inputs()[0].name
        self._output_name = session.get_outputs()[0].name
        self.input, self.info, self.output = form or InputForm(), info, output

    def infer(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(N, C, H, W) of `input.dtype` -> float32 logits or uint8 masks (N, K, H, W).

        Raises BackendError where it fails.
        """
        try:
            (answer,) = self._session.run([self._output_name], {self._input_name: batch})
        except Exception as error:  # onnxruntime's exceptions share no public base class
            raise _failure(self.info, batch.shape, error) from error
        return answer  # type: ignore[no-any-return]  # onnxruntime has no types; checked_infer looks at it


class OnnxRuntimeStream(StreamSession):
    """The same on the stream of a GPU, which the session was opened with."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        info: SessionInfo,
        form: InputForm,
        output: str,
        gpu: Gpu,
        contract: Contract,
    ) -> None:
        import onnxruntime

        self._session: Any = session  # goes before the stream does
        self.output = output
        super().__init__(gpu, contract, dataclasses.replace(form, memory=(HOST, DEVICE, STREAM)), info)
        self._options = onnxruntime.RunOptions()
        self._options.add_run_config_entry(NO_WAIT, "1")
        self._input_name = session.get_inputs()[0].name
        self._output_name = session.get_outputs()[0].name

    def enqueue(self, count: int, source: int, target: int) -> None:
        """As `OnStream`; raises BackendError where ONNX Runtime fails."""
        sides = (
            ("bind_input", self._input_name, self._dtype, self._in_shape, source),
            ("bind_output", self._output_name, self._answer, self._out_shape, target),
        )
        try:
            binding = self._session.io_binding()
            for bind, name, dtype, shape, address in sides:
                getattr(binding, bind)(name, "cuda", self.gpu.ordinal, dtype.type, (count, *shape), address)
            self._session.run_with_iobinding(binding, self._options)
        except Exception as error:  # onnxruntime's exceptions share no public base class
            raise _failure(self.info, (count, *self._in_shape), error) from error

    def release(self) -> None:
        """Forget the network and its memory."""
        self._session = None


def first_line(error: Exception) -> str:
    """What ONNX Runtime says in the first line, or the name of its error."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _failure(info: SessionInfo, shape: tuple[int, ...], error: Exception) -> BackendError:
    return BackendError(
        f"{info.backend} on '{info.device}' failed on a batch of shape {shape} ({first_line(error)}): "
        "try a smaller batch, or check the device"
    )
