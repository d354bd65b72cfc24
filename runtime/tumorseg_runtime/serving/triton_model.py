"""The model that Triton's Python backend runs: one Segmenter an instance, through the public door.

    IMAGE  bytes of an image file (PNG, ..., DICOM)   or   PIXELS  uint8 (H, W, 1) or (H, W, 3) RGB
      -> MASK uint8 (K, H, W), 255 is tumour; MASK_PNG bytes (K); LESIONS JSON (1); MARGIN float32 (1)

Each at the image's own size; what a request does not ask for is not made. A request may hold several images,
of one size where it asks for MASK. What is wrong with one request is that request's error.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tumorseg_runtime.core.errors import BackendError, InputError, TumorsegError
from tumorseg_runtime.core.files import write_bytes
from tumorseg_runtime.core.records import Fields, Format
from tumorseg_runtime.images.frame import Frame
from tumorseg_runtime.images.frames import read_frame
from tumorseg_runtime.images.read import MAX_FILE_BYTES, check_image, decode_image, encode_png
from tumorseg_runtime.inference.prediction import Prediction
from tumorseg_runtime.inference.segmenter import Segmenter

BUNDLE = "bundle"  # beside model.py
IMAGE, PIXELS = "IMAGE", "PIXELS"
MASK, MASK_PNG, LESIONS, MARGIN = "MASK", "MASK_PNG", "LESIONS", "MARGIN"
_DICOM_AT, _DICOM = 128, b"DICM"
_CONFIG = Format("configuration of Triton", "write the repository again", error=BackendError)
_PARAMETERS = Fields(max_batch_size=int, parameters=dict[str, Any])


class TritonPythonModel:
    """What Triton calls. An instance is ready when its Segmenter has passed the self-test on this machine."""

    def initialize(self, args: dict[str, str]) -> None:
        """args: of Triton's. Raises TumorsegError: Triton shows it, and the model does not become ready."""
        self._triton = importlib.import_module("triton_python_backend_utils")
        _check_arrays(self._triton)
        config = _CONFIG.parse(args["model_config"], "config.pbtxt")
        values = _CONFIG.check(config, "config.pbtxt", _PARAMETERS)["parameters"]
        options = {name: one["string_value"] for name, one in values.items()}
        root = Path(args["model_repository"]) / args["model_version"] / BUNDLE
        threads, timeout = options.get("THREADS"), options.get("TIMEOUT_S")
        self.batch = max(1, config["max_batch_size"])
        self.timeout = float(timeout) if timeout else None
        self.segmenter = Segmenter.open(
            root,
            backend=options["BACKEND"],
            device=options.get("DEVICE") or None,
            precision=options.get("PRECISION") or None,
            threads=int(threads) if threads else None,
            batch_size=self.batch,
            self_test=True,
        )
        self._scratch = tempfile.TemporaryDirectory(prefix="tumorseg-triton-")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """A response for each request. The images of all go through one stream: the next is decoded while one
        is inferred."""
        answers: list[list[Prediction | TumorsegError]] = [[] for _ in requests]
        places: list[int] = []

        def source() -> Iterator[Frame]:
            for place, request in enumerate(requests):
                try:
                    for frame in self._frames(request):
                        places.append(place)
                        yield frame
                except InputError as error:
                    answers[place].append(error)

        stream = self.segmenter.stream(source(), batch_size=self.batch, timeout_s=self.timeout)
        with contextlib.closing(stream) as results:
            for result in results:
                outcome = result.prediction or result.error
                assert outcome is not None  # exactly one of them is set
                answers[places[result.index]].append(outcome)
        return [self._respond(request, found) for request, found in zip(requests, answers, strict=True)]

    def finalize(self) -> None:
        """Triton unloads the model."""
        self.segmenter.close()
        self._scratch.cleanup()

    def _frames(self, request: Any) -> Iterator[Frame]:
        """The images of a request; raises InputError for the first bad one."""
        get = self._triton.get_input_tensor_by_name
        encoded, pixels = get(request, IMAGE), get(request, PIXELS)
        if (encoded is None) == (pixels is None):
            both = "both" if encoded is not None else "neither"
            raise InputError(f"got {both} of {IMAGE} and {PIXELS}, expected one of them")
        if pixels is not None:
            for index, array in enumerate(pixels.as_numpy()):
                yield Frame(f"image {index}", check_image(array, f"image {index}"))
            return
        for index, data in enumerate(encoded.as_numpy().reshape(-1)):
            yield self._decoded(data, f"image {index}")

    def _decoded(self, data: bytes, name: str) -> Frame:
        if len(data) > MAX_FILE_BYTES:
            raise InputError(f"{name}: has {len(data)} bytes, expected at most {MAX_FILE_BYTES}: resize it")
        if data[_DICOM_AT : _DICOM_AT + len(_DICOM)] != _DICOM:
            return Frame(name, decode_image(data, name))
        path = Path(self._scratch.name, f"{name}.dcm")
        write_bytes(path, data, durable=False)
        try:
            return read_frame(path)
        except InputError as error:
            raise InputError(str(error).replace(str(path), name)) from error
        finally:
            path.unlink()

    def _respond(self, request: Any, found: list[Prediction | TumorsegError]) -> Any:
        predictions = [one for one in found if isinstance(one, Prediction)]
        fault = next((one for one in found if isinstance(one, TumorsegError)), None)
        try:
            if fault is not None:
                raise fault
            names = request.requested_output_names()
            tensors = [self._triton.Tensor(name, MAKERS[name](predictions)) for name in names]
        except TumorsegError as error:
            kind = self._triton.TritonError
            code = kind.INVALID_ARG if isinstance(error, InputError) else kind.INTERNAL
            return self._triton.InferenceResponse(error=kind(str(error), code))
        return self._triton.InferenceResponse(output_tensors=tensors)


def _check_arrays(triton: Any) -> None:
    """Raise BackendError where this build of Triton and this numpy do not fit together.

    Servers up to 2024 read arrays as numpy 1 lays them out. With numpy 2 they repeat the first byte of every
    input, without an error, so that every mask would be wrong. (With numpy 1 this probe ends the process.)
    """
    if int(np.__version__.partition(".")[0]) < 2:
        return
    probe = np.arange(7, dtype=np.uint8)
    if not np.array_equal(triton.Tensor.from_dlpack("probe", probe).as_numpy(), probe):
        raise BackendError(
            f"this Triton reads arrays of numpy {np.__version__} wrongly, expected one that fits: install "
            "numpy below 2 for its Python, or take a newer Triton"
        )


def _masks(predictions: Sequence[Prediction]) -> Any:
    sizes = {one.masks.shape for one in predictions}
    if len(sizes) > 1:
        raise InputError(
            f"the images of a request have {len(sizes)} sizes, expected one for {MASK}: ask for {MASK_PNG}, "
            "or send each in a request of its own"
        )
    return np.stack([one.masks for one in predictions]).astype(np.uint8) * np.uint8(255)


def _encoded_masks(predictions: Sequence[Prediction]) -> Any:
    def encoded(mask: Any) -> bytes:
        return encode_png(mask.astype(np.uint8) * np.uint8(255))

    return np.array([[encoded(mask) for mask in one.masks] for one in predictions], np.object_)


def _lesions(predictions: Sequence[Prediction]) -> Any:
    return np.array([[json.dumps(one.to_dict()).encode()] for one in predictions], np.object_)


def _margins(predictions: Sequence[Prediction]) -> Any:
    """NaN where masks alone come, without logits."""
    known = [None if one.own_logits is None and one.close is None else one.margin for one in predictions]
    return np.array([[np.nan if margin is None else margin] for margin in known], np.float32)


MAKERS = {MASK: _masks, MASK_PNG: _encoded_masks, LESIONS: _lesions, MARGIN: _margins}
