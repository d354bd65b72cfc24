"""A GPU that computes nothing, for tests: NVIDIA's libraries as stubs, under which the real callers run.

What runs for real: cuda-bindings and NVRTC on the stub driver; ONNX Runtime's CUDA provider on all stubs,
with its partitioning, options and errors. What does not: its kernels and cuDNN's do nothing, so the values
it gives are garbage. Our own kernels do run: g++ compiles the same .cu file, and a launch on the null GPU
calls that.

The driver (`libraries.DRIVER`) is strict. It keeps a violation as text where a GPU would give garbage,
crash or hang: no current context in this thread, memory that was not handed out or lies on another device,
a write behind the end of a block, a stream that touches bytes which another stream may still touch, memory
taken inside of a capture. Queued work runs as late as CUDA allows, so what reads before it waited gets
wrong bits. Pageable memory is copied at once, as CUDA does, and counted. There are two devices of compute
capability 8.9 (NULL_CUDA_CAPABILITY=87 for another).

How to use it, in a test:

    from gpu_null import programs  # functions that run on the null GPU, in a module of this package

    def test_a_batch_waits_once(driver: Floor) -> None:  # fixtures `driver` and `toolkit` of conftest.py
        answer = driver.call(programs.preprocess, [(50, 70)])  # in a process of its own, arguments pickled
        assert answer.counts["synchronisations"] == 1  # names: COUNTS in null.h
        assert answer.value == ...  # what the function returned; its exception is raised here

`driver` runs this interpreter on the driver alone (cuda-bindings, NVRTC, stand-in engines). `toolkit` runs
the environment that `make gpu-null` makes, with onnxruntime-gpu in it and neither torch nor onnx; without
that environment its tests are skipped with the reason. A violation fails the call. Inside of a program
`null.Null()` gives the counts and the order of events (`trace`) between two points, starts work on a stream
as a library would (`run`), and breaks a device with a sticky error (`break_device`).
"""
