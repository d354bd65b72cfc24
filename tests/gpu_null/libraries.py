"""Builds the null GPU's libraries with gcc: driver, CUDA runtime, and libraries that do nothing.

What cuBLAS, cuDNN, cuFFT and cuRAND must offer is read from ONNX Runtime's own provider: every name that it
asks for is there and answers 0, and a `...Create...` gives a handle.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
PROVIDER = "libonnxruntime_providers_cuda.so"
DRIVER = ("driver.c", "work.c", "streams.c", "graphs.c")
COMPILE = ("gcc", "-w", "-std=gnu17", "-O1", "-shared", "-fPIC")
# Names that the provider looks up by itself, so that its table of symbols lacks them.
BY_NAME = {"libcudnn.so.9": rb"cudnn[A-Z]\w*", "libcufft.so.12": rb"cufft[A-Z]\w*"}
# Every search of cuDNN's graphs has one result, whose numbers are 0.
SPECIAL = {
    "cudnnBackendCreateDescriptor": "int cudnnBackendCreateDescriptor(int kind, void **made) "
    "{ static char object[1 << 12]; *made = object; return 0; }",
    "cudnnBackendGetAttribute": "int cudnnBackendGetAttribute(void *object, int name, int type, long room, "
    "long *count, void *values) { int notes = name >= 1302 && name <= 1305; if (count) *count = !notes; "
    "if (room && values && !notes && type != 15) *(int *)values = 0; return 0; }  // 15: made by the caller",
    "cudnnGetVersion": "long cudnnGetVersion(void) { return 92400; }",
    "cudnnGetCudartVersion": "long cudnnGetCudartVersion(void) { return 13000; }",
    "cudnnGetErrorString": 'const char *cudnnGetErrorString(int error) { return "null cuDNN"; }',
}
KERNEL = re.compile(r"__global__\s+void\s+(\w+)\s*\(")


def build_driver(folder: Path) -> Path:
    """`libcuda.so.1` in the folder, which is all that cuda-bindings need."""
    library = folder / "libcuda.so.1"
    _compile([HERE / name for name in DRIVER], library, "-Wl,-soname,libcuda.so.1", "-ldl", "-lpthread")
    return library


def build_toolkit(folder: Path, provider: Path) -> None:
    """The driver and the libraries that ONNX Runtime's CUDA provider (a file) is linked with or looks up."""
    driver = build_driver(folder)
    wanted = names_of(provider)
    cudart = next(name for name in wanted if name.startswith("libcudart."))
    text = (HERE / "cudart.c").read_text()
    missing = [name for name in wanted[cudart] if not re.search(rf"\b{name}\(", text)]
    source = folder / "cudart_all.c"
    source.write_text(f'#include "{HERE / "cudart.c"}"\n' + "".join(map(_nothing, missing)))
    _library(source, folder / cudart, str(driver))
    for name, functions in wanted.items():
        if name != cudart:
            source = folder / f"{name.split('.')[0]}.c"
            source.write_text("".join(map(_nothing, functions)))
            _library(source, folder / name)


def build_kernels(sources: Sequence[Path], folder: Path) -> Path:
    """Every kernel of the .cu files as functions of the host, for `null_load_kernels`."""
    harness, library = folder / "kernels.cpp", folder / "kernels.so"
    names = [name for source in sources for name in KERNEL.findall(source.read_text())]
    lines = [f'#include "{path}"\n' for path in (HERE / "kernels.h", *sources)]
    harness.write_text("".join((*lines, *(f"NULL_KERNEL({name})\n" for name in names))))
    command = [
        "g++",
        "-std=c++17",
        "-O2",
        "-Wall",
        "-Werror",
        "-shared",
        "-fPIC",
        str(harness),
        "-o",
        str(library),
    ]
    subprocess.run(command, check=True, timeout=300)
    return library


def names_of(provider: Path) -> dict[str, list[str]]:
    """Functions that the provider wants of each library, by the library's file name."""
    listed = subprocess.run(
        ["nm", "-D", "--undefined-only", str(provider)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    ).stdout
    wanted: dict[str, list[str]] = {}
    for name, library in re.findall(r"U (\w+)@(libcu\w+\.so\.\d+)", listed):
        wanted.setdefault(library, []).append(name)
    content = provider.read_bytes()
    for library, pattern in BY_NAME.items():
        found = set(re.findall(rb"\0(" + pattern + rb")(?=\0)", content))
        wanted[library] = sorted(name.decode() for name in found)
    wanted["libcurand.so.10"] = ["curandCreateGenerator"]
    return wanted


def _nothing(name: str) -> str:
    if name in SPECIAL:
        return f"{SPECIAL[name]}\n"
    if "Create" in name:
        return f"int {name}(void **made) {{ static char object[1 << 12]; *made = object; return 0; }}\n"
    return f"int {name}(void) {{ return 0; }}\n"


def _library(source: Path, library: Path, *more: str) -> None:
    versions = source.with_suffix(".map")
    versions.write_text(f"{library.name} {{ global: *; }};\n")
    _compile([source], library, f"-Wl,--version-script={versions}", f"-Wl,-soname,{library.name}", *more)


def _compile(sources: list[Path], library: Path, *more: str) -> None:
    subprocess.run([*COMPILE, *map(str, sources), "-o", str(library), *more], check=True, timeout=300)
