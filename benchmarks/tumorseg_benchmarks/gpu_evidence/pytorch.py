"""Stage `torch`: PyTorch on the GPU against PyTorch on the CPU, its tensors in our kernel, its peaks."""

from __future__ import annotations

import copy
import importlib.util
from typing import Any

import numpy as np
import torch

from tumorseg_benchmarks.gpu_evidence.network import networks
from tumorseg_benchmarks.gpu_evidence.stage import Findings, NotPossibleError, Options

SIZE, BATCH = 128, 4
# Largest error over the standard deviation of the logits. FP32 is without TF32.
LIMITS = {"fp32": 1e-4, "fp16": 5e-2}


def run(options: Options, found: Findings) -> None:
    """Compare, then see whether its tensors are read right without a copy."""
    device = cuda_or_dry(options, found)
    found.figures["torch"] = f"{torch.__version__}, CUDA {torch.version.cuda}"
    for name, model in networks(small=options.dry):
        compare(name, model, device, found)
    if importlib.util.find_spec("segmentation_models_pytorch") is None:
        found.lacks("U-Net, U-Net++ and DeepLabV3: segmentation-models-pytorch is not installed")
    if device.type == "cpu":
        found.lacks("CUDA graphs and tensors shared with our kernel: they need a GPU")
        return
    graphs(device, found)
    if importlib.util.find_spec("cuda") is None:
        found.lacks("tensors shared with our kernel: cuda-bindings is not installed")
    else:
        found.attempt("a tensor of torch goes into our kernel and back", lambda: shared(device))


def cuda_or_dry(options: Options, found: Findings) -> torch.device:
    """The GPU; with --dry the CPU in its place. Raises NotPossibleError."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if torch.cuda.is_available() and not options.dry:
        found.figures["gpu"] = torch.cuda.get_device_name(0)
        return torch.device("cuda:0")
    if not options.dry:
        raise NotPossibleError(f"torch {torch.__version__} sees no CUDA device")
    found.lacks("torch on a GPU: the CPU stands in")
    return torch.device("cpu")


def compare(name: str, model: torch.nn.Module, device: torch.device, found: Findings) -> None:
    """FP32 and autocast FP16 against FP32 on the CPU, and one by one against a batch."""
    batch = torch.from_numpy(np.random.default_rng(0).normal(size=(BATCH, 3, SIZE, SIZE)).astype(np.float32))
    with torch.inference_mode():
        expected = model(batch)
        there, moved = copy.deepcopy(model).to(device), batch.to(device)
        full = there(moved)
        alone = torch.cat([there(one[None]) for one in moved])
        with torch.autocast(device.type, torch.float16):
            half = there(moved).float()
    scale = float(expected.std())
    for precision, got in (("fp32", full), ("fp32", alone), ("fp16", half)):
        error = float((got.cpu() - expected).abs().max()) / scale
        what = "one by one" if got is alone else "batch"
        limit = LIMITS[precision]
        found.check(
            f"{name} {precision}, {what}",
            error <= limit,
            f"error {error:.2g} standard deviations, limit {limit:g}",
        )


def graphs(device: torch.device, found: Findings) -> None:
    """A captured CUDA graph must give the bits of the calls that it captured."""
    _, model = next(networks(small=True))
    there = model.to(device)
    batch = torch.randn(BATCH, 3, SIZE, SIZE, device=device)
    with torch.inference_mode():
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                there(batch)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = there(batch)
        expected = there(batch).clone()
        graph.replay()
        torch.cuda.synchronize()
        differ = int((captured != expected).sum())
    found.check("a CUDA graph gives the same bits", not differ, f"{differ} of {expected.numel()} differ")


def shared(device: torch.device) -> str:
    """uint8 pixels of torch into the kernel; the kernel's tensor read by torch, without a copy."""
    from tumorseg_runtime.core.contract import Contract
    from tumorseg_runtime.core.errors import BackendError
    from tumorseg_runtime.processing.preprocess import Preprocessor
    from tumorseg_runtime.processing.preprocess_cuda import open_preprocessor

    contract = Contract(height=64, width=96)
    pixels = np.random.default_rng(1).integers(0, 256, (3, 217, 333, 3), np.uint8)
    there: Any = torch.from_numpy(pixels).to(device)
    torch.cuda.synchronize()
    tensor = open_preprocessor(contract)(list(there))
    back = torch.as_tensor(tensor, device=device).cpu().numpy()
    expected = np.stack([Preprocessor(contract)(one) for one in pixels])
    if differ := int(np.count_nonzero(back.view("u4") != expected.view("u4"))):
        raise BackendError(f"{differ} of {back.size} values differ, expected none: copy through the host")
    return f"{back.size} values, none differs"
