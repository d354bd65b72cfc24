"""Programs that serve masks through the public door, decided on the null GPU."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fakes.tensorrt import FakeTensorRt
from gpu_null.engines import CONTRACT, open_stand_in
from gpu_null.null import Null
from tumorseg_benchmarks.latency.stages import staged_call
from tumorseg_benchmarks.variants.gpu_served import ServedOnGpu
from tumorseg_benchmarks.variants.inputs import EncodedImage
from tumorseg_export.engine import build
from tumorseg_export.references.golden_images import write_golden
from tumorseg_runtime.backends import BACKENDS, onnxruntime, tensorrt
from tumorseg_runtime.backends.onnxruntime_sessions import OnnxRuntimeSession
from tumorseg_runtime.bundle.bundle import GOLDEN_FOLDER, INDEX, Artefact, Bundle, FileRecord, sha256_of
from tumorseg_runtime.core.errors import BackendError
from tumorseg_runtime.core.session import InProcess, InputForm, SessionInfo
from tumorseg_runtime.device.engines import Profile
from tumorseg_runtime.device.stream_session import StreamSession
from tumorseg_runtime.images.read import encode_png
from tumorseg_runtime.inference.gpu_process import GpuProcess, MasksApart, open_apart
from tumorseg_runtime.inference.prediction import Prediction
from tumorseg_runtime.inference.segmenter import Segmenter
from tumorseg_runtime.parity.margin import Band
from tumorseg_runtime.parity.reference import Golden
from tumorseg_runtime.processing.preprocess import Preprocessor
from tumorseg_runtime.processing.preprocess_cuda import open_preprocessor

BATCH = 2
BAND = Band(0.05, "a test")
OWN = (CONTRACT.height, CONTRACT.width)
SIZES = [(50, 70, 3), (90, 61), OWN, (128, 192), (33, 48, 3), (7, 300)]


class OnCpu(InProcess):
    """The network on the CPU: the mean of the channels in the stand-in, each channel itself in the copy."""

    input, info = InputForm(), SessionInfo("cpu", "cpu", "fp32", {})

    def infer(self, batch: np.ndarray) -> np.ndarray:
        return batch if len(CONTRACT.classes) == 3 else batch.mean(axis=1, keepdims=True)


@contextlib.contextmanager
def session(copy: Path | None = None) -> Iterator[StreamSession]:
    """The stand-in for TensorRT, or the real ONNX Runtime on a graph that copies its input, which is all that
    it computes here."""
    global CONTRACT
    with tempfile.TemporaryDirectory() as folder:
        if copy is None:
            yield open_stand_in(Path(folder), rtx=False)[1]
            return
        CONTRACT = dataclasses.replace(CONTRACT, classes=("red", "green", "blue"))
        artefact = Artefact(copy.name, "onnx", "fp32", None, {}, ())
        bundle = Bundle(copy.parent, "copy", CONTRACT, (artefact,), (), {}, {}, {}, {})
        yield onnxruntime.open_session(BACKENDS["onnxruntime"], bundle, "cuda", "fp32", None)


def images(count: int, sizes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """Gray and RGB images, other pixels in each."""
    random = np.random.default_rng(0)
    return [random.integers(0, 256, sizes[index % len(sizes)], np.uint8) for index in range(count)]


def door(on: Any, **options: Any) -> Segmenter:
    return Segmenter(CONTRACT, on, BATCH, band=BAND, **options)


def same(found: list[Prediction], given: list[np.ndarray]) -> list[bool]:
    """Has each prediction the masks, lesions and margin that the CPU gives?"""
    expected = door(OnCpu()).predict(given)
    return [
        np.array_equal(one.masks, other.masks) and one.lesions == other.lesions and one.margin == other.margin
        for one, other in zip(found, expected, strict=True)
    ]


def before(count: int, copy: Path | None) -> dict[str, Any]:
    """The way by preprocessor and session: counts of `count` batches in steady state, and their trace."""
    if copy is not None:
        return before_io_binding(count, copy)
    with session() as on:
        preprocess, null = open_preprocessor(CONTRACT), Null()
        given = images(BATCH * (count + 2), [OWN])
        batches = [given[start : start + BATCH] for start in range(0, len(given), BATCH)]
        tensor = preprocess(batches[0])
        on.infer(tensor)
        on.infer(preprocess(batches[1], out=tensor))
        null.reset()
        for batch in batches[2:]:
            on.infer(preprocess(batch, out=tensor))
        return {"counts": null.counts(), "trace": null.trace()}


def before_io_binding(count: int, copy: Path) -> dict[str, Any]:
    """ONNX Runtime from numpy to numpy, on a stream of its own."""
    with session(copy):
        on, null = OnnxRuntimeSession(onnxruntime.open_file(copy, "cuda", None), OnCpu.info), Null()
        segmenter, given = door(on), images(BATCH * (count + 2), [OWN])
        segmenter.predict(given[: 2 * BATCH])
        null.reset()
        segmenter.predict(given[2 * BATCH :])
        return {"counts": null.counts(), "trace": null.trace()}


def after(count: int, logits: bool | str, by_stream: bool, copy: Path | None) -> dict[str, Any]:
    """The same through `Segmenter.predict` or `stream`, and whether every prediction is right."""
    with session(copy) as on:
        segmenter, null = door(on, logits=logits), Null()
        given = images(BATCH * (count + 6), [OWN])
        head, tail = given[: 6 * BATCH], given[6 * BATCH :]
        found = segmenter.predict(head)
        null.reset()
        if by_stream:
            results = list(segmenter.stream(tail, batch_size=BATCH, max_pending=4))
            found += [result.prediction for result in results]
        else:
            found += segmenter.predict(tail)
        counts, trace = null.counts(), null.trace()
        return {
            "right": same(found, given),
            "logits": [one.own_logits is not None for one in found],
            "halves": [
                np.array_equal(one.own_logits, other.logits.astype(np.float16).astype(np.float32))
                for one, other in zip(found, door(OnCpu()).predict(given), strict=True)
                if logits == "float16" and one.own_logits is not None
            ],
            "counts": counts,
            "trace": trace,
        }


def timed(copy: Path | None) -> dict[str, Any]:
    """A row of the benchmark: are its masks and its parts there, and what does a call cost?"""
    with session(copy) as on:
        row, null = ServedOnGpu(on, CONTRACT), Null()
        given = images(BATCH, [OWN])
        preprocess = Preprocessor(CONTRACT)
        for _ in range(3):
            row.serve(given)
        null.reset()
        encoded = [EncodedImage(str(index), encode_png(pixels)) for index, pixels in enumerate(given)]
        stages = staged_call(row, CONTRACT, preprocess, encoded)
        counts = null.counts()
        return {
            "right": [
                np.array_equal(found, one.masks)
                for found, one in zip(row.serve(given), door(OnCpu()).predict(given), strict=True)
            ],
            "stages": stages,
            "counts": counts,
        }


def sealed(copy: Path, root: Path) -> Path:
    """A bundle of the graph that copies, with one golden image."""
    contract = dataclasses.replace(CONTRACT, classes=("red", "green", "blue"))
    (root / GOLDEN_FOLDER).mkdir(parents=True)
    (root / copy.name).write_bytes(copy.read_bytes())
    (pixels,) = images(1, [OWN])
    tensor = Preprocessor(contract)(pixels)
    write_golden([Golden("noise", pixels, tensor, tensor)], root)
    files = {
        path.relative_to(root).as_posix(): FileRecord(sha256_of(path), path.stat().st_size)
        for path in root.rglob("*")
        if path.is_file()
    }
    artefact = Artefact(copy.name, "onnx", "fp32", None, {}, ())
    bundle = Bundle(root, "copy", contract, (artefact,), ("noise",), files, {}, {}, {})
    (root / INDEX).write_text(bundle.to_index())
    return root


def survives(copy: Path, root: Path, fault: Path, logits: bool | str) -> dict[str, Any]:
    """A session in a process of its own, before, at and after an error of CUDA that stays."""
    global CONTRACT
    CONTRACT = dataclasses.replace(CONTRACT, classes=("red", "green", "blue"))
    bundle = Bundle.open(sealed(copy, root))
    with Segmenter.open(bundle, device="cuda", batch_size=BATCH, logits=logits) as opened:
        apart = isinstance(opened._keeper._session, MasksApart)
    options = {"backend": "onnxruntime", "device": "cuda", "precision": "fp32", "threads": None}
    process = open_apart(bundle, device_folder=None, **options)
    assert isinstance(process, GpuProcess)
    segmenter, worker = door(process, logits=logits), process._worker
    given = images(8, SIZES)
    first = same(segmenter.predict(given), given)
    before = worker.pid
    fault.touch()
    said = []
    try:
        segmenter.predict(given)
    except BackendError as error:
        said.append(str(error))
    second = same(segmenter.predict(given), given)
    streamed = same([one.prediction for one in segmenter.stream(given, batch_size=BATCH)], given)
    after = worker.pid
    segmenter.close()
    right = [*first, *second, *streamed]
    return {"right": right, "said": said, "other process": before != after, "apart": apart}


def any_sizes(copy: Path | None) -> dict[str, Any]:
    """Images of many sizes, in turns that make the memory grow, by one and by two."""
    with session(copy) as on:
        segmenter = door(on, logits=False)
        given = [*images(12, SIZES), *images(2, [(400, 300, 3)]), *images(3, SIZES)]
        found = segmenter.predict(given)
        found += [segmenter.predict(image) for image in given]
        return {"right": same(found, [*given, *given])}


def unsure() -> tuple[list[bool], int]:
    """Resized logits that lie on the edge of the band: are the predictions the CPU's, and what came down?"""
    global BAND
    given = [np.full(size, 90, np.uint8) for size in [(50, 70), (90, 61), OWN]]
    BAND = Band(float(abs(Preprocessor(CONTRACT)(given[0]).mean(axis=0)[0, 0])), "a test")
    with session() as on:
        segmenter, null = door(on, logits=False), Null()
        null.reset()
        found = segmenter.predict(given)
        return same(found, given), null.counts()["downloads"]


def not_finite() -> list[bool]:
    """An engine whose logits become infinite."""
    with session() as on:
        segmenter = door(on, logits=False)
        on._execution.contexts[0]._engine.gain = float("inf")
        return [bool(one.masks.any()) for one in segmenter.predict(images(2, [OWN]))]


def taken_by_turns() -> list[bool]:
    """Generators that are left standing with a batch under way keep nobody from his masks."""
    with session() as on:
        segmenter = door(on, logits=False)
        given = images(8, SIZES)
        standing = [segmenter.predict_each(given) for _ in range(3)]
        begun = [[next(one) for one in standing] for _ in range(2)]
        found = segmenter.predict(given)
        rest = [list(one) for one in standing]
        return [
            *same(found, given),
            *(all(same([pair[n] for pair in begun] + rest[n], given)) for n in range(3)),
        ]


def built_and_opened(root: Path, folder: Path, device: str) -> dict[str, Any]:
    """`build`, then `Segmenter.open` with a full self-test, on a bundle of the stand-in's network: counts of
    four further batches of one, and what the predictions hold."""
    null, bundle = Null(), Bundle.open(root)
    size = (bundle.contract.height, bundle.contract.width)
    trt = FakeTensorRt(null, size=size)
    build.load_tool = tensorrt.load_tool = lambda tool: trt  # type: ignore[assignment]
    tensorrt.why_unavailable = lambda device: None  # type: ignore[assignment]
    options = build.DeviceOptions(profile=Profile(1, 2, 4), device=device)
    build.build_for_device(bundle, folder, options, lambda line: None)
    before = set(folder.iterdir())
    segmenter = Segmenter.open(
        bundle, backend="tensorrt", device=device, precision="fp16", batch_size=1, self_test="full",
        device_folder=folder, own_process=False,
    )  # fmt: skip
    given = images(8, [size])
    segmenter.predict(given[:4])
    null.reset()
    found = segmenter.predict(given[4:])
    counts = null.counts()
    segmenter.close()
    return {
        "masks_alone": [one.own_logits is None and one.margin is not None for one in found],
        "counts": counts,
        "repr": repr(segmenter),
        "gpu": segmenter.info.versions["gpu"],
        "kernels were there": set(folder.iterdir()) == before,
    }
