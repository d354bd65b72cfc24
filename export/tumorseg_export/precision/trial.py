"""Graphs that are run to see what they do, under ONNX Runtime on the CPU.

It stores FP16 tensors as FP16 but computes a convolution in FP32: what is seen is the rounding and the
overflow of stored tensors and weights, not of a GPU's accumulation: see
`tumorseg_export.precision.fp16_ranges`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from tumorseg_runtime.backends.onnxruntime import open_file
from tumorseg_runtime.backends.onnxruntime_sessions import OnnxRuntimeSession
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.files import write_bytes
from tumorseg_runtime.core.session import SessionInfo
from tumorseg_runtime.inference.segmenter import Segmenter
from tumorseg_runtime.parity.budget import Budget
from tumorseg_runtime.parity.compare import ImageParity, logit_scale
from tumorseg_runtime.parity.reference import Golden
from tumorseg_runtime.parity.replay import ONE_BY_ONE, replay

FloatArray = npt.NDArray[np.float32]
Runner = Callable[[FloatArray], dict[str, FloatArray]]


@dataclasses.dataclass(frozen=True)
class Trials:
    """Runs graphs on calibration images and compares with PyTorch.

    folder: for files that live as long as one session. images: with PyTorch's logits.
    scale: standard deviation of those logits, the unit of `relative_error`.
    """

    folder: Path
    contract: Contract
    images: tuple[Golden, ...]
    scale: float

    @classmethod
    def over(cls, images: Sequence[Golden], contract: Contract, folder: Path) -> Trials:
        """Trials over these images."""
        return cls(folder, contract, tuple(images), logit_scale([image.logits for image in images]))

    @contextlib.contextmanager
    def session(self, model: onnx.ModelProto) -> Iterator[Runner]:
        """A function that takes a batch float32 (N, C, H, W) and gives all outputs by name."""
        session = self._open(model)
        names = [output.name for output in session.get_outputs()]
        image = session.get_inputs()[0].name
        yield lambda batch: dict(zip(names, session.run(names, {image: batch}), strict=True))

    def _open(self, model: onnx.ModelProto) -> Any:
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            path = Path(name) / "trial.onnx"
            write_bytes(path, model.SerializeToString(), durable=False)
            return open_file(path, "cpu", None, arena=False)

    def logits(self, model: onnx.ModelProto, images: Sequence[Golden]) -> Iterator[tuple[Golden, FloatArray]]:
        """Each image with the graph's logits (K, H, W), one at a time."""
        with self.session(model) as run:
            for image in images:
                (logits,) = run(image.tensor[None]).values()
                yield image, logits[0]

    def compare(
        self, model: onnx.ModelProto, images: Sequence[Golden], budget: Budget
    ) -> Iterator[ImageParity]:
        """Figures of the images one by one, through the door that serves."""
        info = SessionInfo("onnxruntime", "cpu", "fp16", {})
        door = Segmenter(self.contract, OnnxRuntimeSession(self._open(model), info), 1)
        for image in images:
            yield from replay(
                door, (image,), budget, ONE_BY_ONE, artefact=image.name, scale=self.scale
            ).images

    def compare_all(self, model: onnx.ModelProto, budget: Budget, *, whole: bool = True) -> list[ImageParity]:
        """Figures of every image; without `whole`, it ends after the first breach."""
        results = []
        for parity in self.compare(model, self.images, budget):
            results.append(parity)
            if parity.breaches and not whole:
                break
        return results
