"""The CUDA kernels, as source beside this file, and their compilation by NVRTC for the GPU at hand.

NVRTC needs no driver, so that any machine can compile for any GPU that its version knows.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from tumorseg_runtime.core.errors import BackendError
from tumorseg_runtime.core.files import make_folder, write_bytes
from tumorseg_runtime.device.cuda import bindings

SOURCE = Path(__file__).with_name("preprocess.cu")
DECIDE = Path(__file__).with_name("decide.cu")
DIGEST_BYTES = 64


def cubin_of(capability: int, cache: Path | None = None, kernels: Path = SOURCE) -> bytes:
    """The compiled kernels of one source for one compute capability (87 is 8.7).

    cache: folder for what was compiled, named by the source's hash and the architecture; None keeps nothing.
    A cached file whose own SHA-256 does not fit is compiled again. Raises BackendError where NVRTC is missing
    or does not know the GPU, InputError where the folder cannot be written.
    """
    source = kernels.read_bytes()
    if cache is None:
        return compile_cubin(source, capability, kernels.name)
    path = cache / f"{kernels.stem}-{hashlib.sha256(source).hexdigest()[:16]}-sm_{capability}.cubin"
    if path.exists():
        stored = path.read_bytes()
        cubin = stored[DIGEST_BYTES:]
        if stored[:DIGEST_BYTES] == _digest(cubin):
            return cubin
    cubin = compile_cubin(source, capability, kernels.name)
    make_folder(cache)
    write_bytes(path, _digest(cubin) + cubin)
    return cubin


def _digest(cubin: bytes) -> bytes:
    return hashlib.sha256(cubin).hexdigest().encode()


def compile_cubin(source: bytes, capability: int, name: str = SOURCE.name) -> bytes:
    """CUDA C++ -> cubin for sm_<capability>; raises BackendError with NVRTC's first line."""
    nvrtc = bindings("nvrtc")
    try:
        known = _value(nvrtc, nvrtc.nvrtcGetSupportedArchs())
    except RuntimeError as error:  # the bindings are there, the library is not
        raise BackendError(
            f"NVRTC cannot be loaded ({str(error).splitlines()[0]}), expected libnvrtc: "
            "pip install 'tumorseg[gpu-cu12]' or 'tumorseg[gpu-cu13]'"
        ) from error
    if capability not in known:
        raise BackendError(
            f"the GPU is sm_{capability}, NVRTC knows {', '.join(f'sm_{one}' for one in known)}: "
            "install a CUDA package that is newer (or, for an old GPU, older)"
        )
    program = _value(nvrtc, nvrtc.nvrtcCreateProgram(source, name.encode(), 0, [], []))
    options = [f"--gpu-architecture=sm_{capability}".encode(), b"--std=c++17"]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    if int(status) != 0:
        log = bytearray(_value(nvrtc, nvrtc.nvrtcGetProgramLogSize(program)))
        nvrtc.nvrtcGetProgramLog(program, log)
        first = bytes(log).decode(errors="replace").strip("\0 \n").splitlines()[:1]
        raise BackendError(
            f"NVRTC does not compile {name} for sm_{capability} "
            f"({first[0] if first else status.name}), expected the installed source: install tumorseg again"
        )
    cubin = bytearray(_value(nvrtc, nvrtc.nvrtcGetCUBINSize(program)))
    _value(nvrtc, nvrtc.nvrtcGetCUBIN(program, cubin))
    _value(nvrtc, nvrtc.nvrtcDestroyProgram(program))
    return bytes(cubin)


def _value(nvrtc: Any, answer: tuple[Any, ...]) -> Any:
    """The value of an answer (status, *values) of NVRTC."""
    status, *values = answer
    if int(status) != 0:
        raise BackendError(f"NVRTC failed ({status.name}), expected success: install the CUDA packages again")
    return values[0] if values else None
