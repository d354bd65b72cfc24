"""PyTorch as a `Session`, so that the reference is run, timed and compared like every artefact."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from tumorseg_runtime.core.session import InProcess, InputForm, SessionInfo


class PyTorchSession(InProcess):
    """The trained network on the CPU, FP32 throughout; for a GPU `pytorch_gpu`.

    memory: axis order of the activations inside. compiled: through torch.compile, at the first inference of
    each batch size.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        device: str,
        *,
        memory: torch.memory_format = torch.contiguous_format,
        compiled: bool = False,
    ) -> None:
        self._device = torch.device(device)
        self._memory = memory
        model = model.eval().to(self._device).to(memory_format=memory)
        self._model = torch.compile(model) if compiled else model
        self.input = InputForm()
        versions = {"torch": str(torch.__version__)}
        if device == "cuda":
            versions |= {"cuda": str(torch.version.cuda), "gpu": torch.cuda.get_device_name(self._device)}
        self.info = SessionInfo("pytorch", device, "fp32", versions)

    def infer(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32 (N, C, H, W) -> float32 logits (N, K, H, W), both in host memory.

        Returns only after the device has finished, so that a clock around the call sees all of it.
        """
        precise = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        with torch.inference_mode(), precise:
            there = torch.from_numpy(batch).to(self._device, memory_format=self._memory)
            logits = self._model(there).cpu()
        return np.asarray(logits.numpy(), np.float32, order="C")
