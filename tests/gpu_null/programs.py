"""Functions that run on the null GPU, in a process of their own."""

from __future__ import annotations

from pathlib import Path


def open_graphs(paths: list[Path]) -> dict[str, str]:
    """Open ONNX files on CUDA as the product does, every node placed there: errors by name, '' for none."""
    from tumorseg_runtime.backends.onnxruntime import open_file
    from tumorseg_runtime.core.errors import BackendError

    said = {}
    for path in paths:
        try:
            open_file(path, "cuda", None)
        except BackendError as error:
            said[path.name] = str(error)
        else:
            said[path.name] = ""
    return said


def preprocess(sizes: list[tuple[int, ...]], dtype: str) -> tuple[bool, dict[str, int]]:
    """A batch by the real cuda-bindings and NVRTC: has it the CPU's bits, and what does the next one cost?"""
    import numpy as np

    from gpu_null.null import Null
    from tumorseg_runtime.core.contract import Contract
    from tumorseg_runtime.processing.preprocess import Preprocessor
    from tumorseg_runtime.processing.preprocess_cuda import open_preprocessor

    contract = Contract(height=64, width=96)
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, size, np.uint8) for size in sizes]
    on_gpu, on_cpu = open_preprocessor(contract, dtype=dtype), Preprocessor(contract)
    tensor = on_gpu(images)
    same = np.array_equal(tensor.numpy(), np.stack([on_cpu(image) for image in images]).astype(dtype))
    null = Null()
    null.reset()
    on_gpu(images, out=tensor)
    return same, null.counts()
