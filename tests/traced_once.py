"""Most exports of a test file are of one network, and torch takes longer to trace it than all else takes.

`test_another_process_gives_the_same_bytes` holds that to trace it again gives the same graph.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch

KEPT = 3  # networks: weights are large


@contextmanager
def tracing_each_network_once() -> Iterator[None]:
    """Inside the block `torch.onnx.export` gives what it gave for the same network; nothing where no test
    that is collected exports."""
    if not {"torch", "tumorseg_export.onnx.export"} <= sys.modules.keys():
        yield
        return
    import torch

    export, known = torch.onnx.export, dict[str, Any]()

    def once(model: torch.nn.Module, example: tuple[torch.Tensor], **options: Any) -> Any:
        key = _digest(model, f"{example[0].shape} {options}")
        if (program := known.pop(key, None)) is None:
            program = export(model, example, **options)
        while len(known) >= KEPT:
            known.pop(next(iter(known)))
        known[key] = program
        return torch.onnx.ONNXProgram(program.model.clone(), None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", once)
        yield


def _digest(model: torch.nn.Module, about: str) -> str:
    """Of all that decides a network's graph: the code of its modules, their settings and their weights."""
    digest = hashlib.sha256(f"{model} {about}".encode())
    for name, module in model.named_modules():
        code = inspect.unwrap(type(module).forward).__code__
        plain = {key: one for key, one in vars(module).items() if isinstance(one, (int, float, str, tuple))}
        digest.update(f"{name} {code.co_filename} {code.co_firstlineno} {plain}".encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
    return digest.hexdigest()
