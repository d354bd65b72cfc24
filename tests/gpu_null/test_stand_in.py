"""The stand-in for TensorRT has the names and arguments of the real packages, so that it can stand in.

tensorrt_rtx is asked itself; TensorRT 10 by the package tensorrt-stubs, which has signatures and no code.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

from fakes import tensorrt as fake
from gpu_null.conftest import HOME

CLASSES = {
    "Builder": fake._Builder,
    "IBuilderConfig": fake._Config,
    "ICudaEngine": fake._RtxEngine,
    "IExecutionContext": fake._Context,
    "Runtime": fake._Runtime,
    "OnnxParser": fake._Parser,
    "IRuntimeConfig": fake._RuntimeConfig,
    "IRuntimeCache": fake._RuntimeCache,
}
METHODS = [
    (name, method)
    for name, kind in CLASSES.items()
    for method, function in inspect.getmembers(kind, inspect.isfunction)
    if not method.startswith("_")
]
RTX_ALONE = {"IRuntimeCache", "create_runtime_cache", "set_runtime_cache", "set_compute_capability"}
Signature = tuple[list[str], int]  # arguments, and how many of them must be given


def fits(name: str, method: str, signatures: list[Signature]) -> bool:
    """Whether a call as the stand-in takes it is a call of one of the real signatures."""
    taken = list(inspect.signature(getattr(CLASSES[name], method)).parameters)[1:]
    return any(names[: len(taken)] == taken and needed <= len(taken) for names, needed in signatures)


def arguments_of(text: str) -> Signature:
    """Of 'a: T, b: U[V, W] = 0': the names, and how many have no default."""
    flat = re.sub(r"\[[^\[\]]*\]", "", re.sub(r"\[[^\[\]]*\]", "", text))
    parts = [part for part in flat.split(", ") if part and part != "self" and not part.startswith("self:")]
    return [part.split(":")[0] for part in parts], sum(" = " not in part for part in parts)


def signatures_of_doc(text: str, method: str) -> list[Signature]:
    """What pybind11 writes into a docstring, one line for an overload."""
    lines = re.findall(rf"^(?:\d+\. )?{method}\((self.*)\) -> ", text, re.MULTILINE)
    return [arguments_of(line) for line in lines]


@pytest.fixture(scope="module")
def stubs() -> dict[str, dict[str, list[Signature]]]:
    """Signatures of TensorRT 10's methods, by class and name."""
    path = HOME / "stubs" / "tensorrt_bindings" / "tensorrt.pyi"
    if not path.is_file():
        pytest.skip("no tensorrt-stubs: make gpu-null fetches them")
    found: dict[str, dict[str, list[Signature]]] = {}
    methods: dict[str, list[Signature]] = {}
    for line in path.read_text().splitlines():  # not all of it is Python: ast refuses it
        if opened := re.match(r"class (\w+)", line):
            methods = found.setdefault(opened[1], {})
        elif defined := re.match(r"    def (\w+)\((.*)\) ->", line):
            methods.setdefault(defined[1], []).append(arguments_of(defined[2]))
    return found


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_tensorrt_rtx_has_the_method_with_these_arguments(name: str, method: str) -> None:
    rtx = pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    real: Callable[..., Any] | None = getattr(getattr(rtx, name), method, None)
    assert real is not None, f"{name} has no {method}"
    assert fits(name, method, signatures_of_doc(real.__doc__ or "", method)), real.__doc__


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_tensorrt_10_has_it_too(stubs: dict[str, dict[str, list[Signature]]], name: str, method: str) -> None:
    if {name, method} & RTX_ALONE:
        assert method not in stubs.get(name, {})
        return
    assert fits(name, method, stubs[name].get(method, [])), stubs[name].get(method)


def test_only_tensorrt_rtx_specialises_kernels(stubs: dict[str, dict[str, list[Signature]]]) -> None:
    """`device.execution` tells them apart by this name: TensorRT 10.13 has a runtime configuration, too."""
    assert "DynamicShapesKernelSpecializationStrategy" not in stubs
    assert "create_runtime_config" in stubs["ICudaEngine"]
    rtx = importlib.import_module("tensorrt_rtx")
    assert rtx.DynamicShapesKernelSpecializationStrategy.EAGER is not None
