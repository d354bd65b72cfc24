"""Most networks that tests export differ in their weights alone, and torch takes longer to trace one than all
else takes: each structure is traced once, and a graph with other weights is made of it.

`test_another_process_gives_the_same_bytes` holds that to trace a network again gives the same graph,
`test_traced_once.py` that the graph of another one's trace is that of its own.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch

KEPT = 8  # structures, each with the weights of its first network


@contextmanager
def tracing_each_network_once() -> Iterator[None]:
    """Inside the block `torch.onnx.export` traces no structure again; nothing where no test that is collected
    exports."""
    if not {"torch", "tumorseg_export.onnx.export"} <= sys.modules.keys():
        yield
        return
    import torch

    export, known = torch.onnx.export, dict[str, Any]()

    @functools.wraps(export)  # which `inspect.unwrap` gives
    def once(model: torch.nn.Module, example: tuple[torch.Tensor], **options: Any) -> Any:
        key = _digest(model, f"{example[0].shape} {options}")
        if (program := known.pop(key, None)) is None:
            program = export(model, example, **options, optimize=False)
        while len(known) >= KEPT:
            known.pop(next(iter(known)))
        known[key] = program
        again = torch.onnx.ONNXProgram(program.model.clone(), None)
        _put(model.state_dict(), again.model.graph.initializers)
        # the names of nodes that it makes are numbered, and a clone would begin anew
        names, traced = (one.model.graph._name_authority for one in (again, program))
        names._node_counter, names._value_counter = traced._node_counter, traced._value_counter
        again.optimize()
        return again

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", once)
        yield


def _put(weights: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
    """The weights into a graph that is not optimised yet: there each is a value of its own name."""
    for name in weights.keys() & values.keys():
        tensor = type(values[name].const_value)
        values[name].const_value = tensor(weights[name], name=name)


def _digest(model: torch.nn.Module, about: str) -> str:
    """Of all that decides a network's trace: the code of its modules, their settings, the names and shapes of
    their weights, and what else they hold."""
    digest = hashlib.sha256(f"{model} {about}".encode())
    for name, module in model.named_modules():
        code = inspect.unwrap(type(module).forward).__code__
        plain = {key: one for key, one in vars(module).items() if isinstance(one, (int, float, str, tuple))}
        digest.update(f"{name} {code.co_filename} {code.co_firstlineno} {plain}".encode())
    weights = model.state_dict()
    for name, tensor in (*weights.items(), *model.named_parameters(), *model.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if name not in weights:
            digest.update(tensor.detach().numpy().tobytes())
    return digest.hexdigest()
