"""The execution context of an engine, and the kernels that TensorRT-RTX compiles for it on the device.

By default TensorRT-RTX serves a fall-back kernel first and another one later, from a thread: what was proven
would not be what serves. Here every kernel is the one for the shape that is asked for (EAGER), and what was
compiled is kept in the device folder, so that a start does not compile again.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from tumorseg_runtime.core.files import make_folder, write_bytes
from tumorseg_runtime.device.engines import EngineKey

SUFFIX = ".kernels"


@dataclasses.dataclass(frozen=True)
class Execution:
    """A context for each profile of the engine, and where its kernels are kept; cache and path are None where
    none are. smallest: batch that the last profile is for."""

    contexts: tuple[Any, ...]
    smallest: int
    cache: Any = None
    path: Path | None = None

    @classmethod
    def of(cls, trt: Any, engine: Any, key: EngineKey, folder: Path | None, stream: int) -> Execution | None:
        """Contexts of the engine, None where TensorRT makes none. folder: of the device. stream: on which
        they are made ready, which the caller waits for."""
        strategy = getattr(trt, "DynamicShapesKernelSpecializationStrategy", None)
        if strategy is None:  # TensorRT, whose engine holds its kernels
            profiles = range(engine.num_optimization_profiles)
            # Scratch memory of each profile's own size: by default each context takes the largest one's.
            memory = (trt.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE,) if len(profiles) > 1 else ()
            contexts = [engine.create_execution_context(*memory) for _ in profiles]
            ready = len(profiles) == 1 or all(
                context is not None and context.set_optimization_profile_async(index, stream)
                for index, context in zip(profiles, contexts, strict=True)
            )
            return cls(tuple(contexts), key.profile.smallest) if ready and None not in contexts else None
        config = engine.create_runtime_config()
        config.dynamic_shapes_kernel_specialization_strategy = strategy.EAGER
        cache, path = None, None
        if folder is not None:
            cache, path = config.create_runtime_cache(), folder / f"{key.digest()[:16]}{SUFFIX}"
            if path.is_file():
                cache.deserialize(path.read_bytes())  # refused where machine or version differ: filled anew
            config.set_runtime_cache(cache)
        context = engine.create_execution_context(config)
        return None if context is None else cls((context,), key.profile.smallest, cache, path)

    def context_for(self, count: int) -> Any:
        """The context that is tuned for a batch of `count`."""
        return self.contexts[-1 if count == self.smallest else 0]

    def keep(self) -> None:
        """Write the kernels that were compiled so far; InputError where the folder cannot be written."""
        if self.path is None:
            return
        kernels = bytes(self.cache.serialize())
        if not self.path.is_file() or self.path.read_bytes() != kernels:
            make_folder(self.path.parent)
            write_bytes(self.path, kernels)
