"""PyTorch eager as a `Session`, so that the reference is run, timed and compared like every artefact."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from tumorseg_runtime.session import InputForm, SessionInfo


class PyTorchSession:
    """The trained network on 'cpu' or 'cuda', FP32 throughout.

    On CUDA the TensorFloat-32 convolutions that PyTorch takes by default are off: they keep 10 bits of the
    mantissa, and what is called FP32 here is FP32.
    """

    def __init__(self, model: torch.nn.Module, device: str) -> None:
        self._device = torch.device(device)
        self._model = model.eval().to(self._device)
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
            logits = self._model(torch.from_numpy(batch).to(self._device)).cpu()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return np.asarray(logits.numpy(), np.float32)


def set_threads(threads: int) -> None:
    """CPU threads of every PyTorch inference of this process."""
    torch.set_num_threads(threads)
