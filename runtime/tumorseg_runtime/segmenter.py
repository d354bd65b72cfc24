"""The runtime's front door: a bundle on one backend, images in, masks at their original sizes out."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.backends import open_session
from tumorseg_runtime.bundle import Bundle
from tumorseg_runtime.contract import Contract
from tumorseg_runtime.errors import BackendError, InputError, ParityError
from tumorseg_runtime.golden import replay
from tumorseg_runtime.images import check_image, read_image
from tumorseg_runtime.postprocess import Lesion, find_lesions, masks_from_logits
from tumorseg_runtime.preprocess import Preprocessor
from tumorseg_runtime.session import Session, SessionInfo, checked_infer

Image = npt.NDArray[np.uint8] | str | Path


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
    """Masks of one image.

    name: the path, or 'image <index>' for an array.
    image: the pixels that were judged, uint8 (H, W) or (H, W, 3) RGB.
    masks: bool (K, H, W) at the image's own size, one per class of the contract.
    lesions: connected components of all classes, largest first within a class.
    """

    name: str
    image: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.bool_]
    lesions: tuple[Lesion, ...]

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """bool (H, W): pixels that belong to any class."""
        return np.asarray(self.masks.any(axis=0))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without pixels."""
        height, width = self.masks.shape[1:]
        lesions = [lesion.to_dict() for lesion in self.lesions]
        return {"image": self.name, "height": height, "width": width, "lesions": lesions}


class Segmenter:
    """Segments images with one session. Results do not depend on which images share a batch."""

    def __init__(self, contract: Contract, session: Session, batch_size: int = 4) -> None:
        form, limit = session.input, session.input.max_batch
        if (form.dtype, form.layout) != ("float32", "NCHW"):
            raise BackendError(
                f"{session.info.backend} takes {form.dtype} {form.layout}, expected float32 NCHW, "
                "which is what the preprocessor makes: choose another artefact or backend"
            )
        if batch_size < 1 or (limit is not None and batch_size > limit):
            raise InputError(
                f"batch size is {batch_size}, expected 1 to {limit or 'any number'} "
                f"(what {session.info.backend} takes)"
            )
        self.contract = contract
        self.batch_size = batch_size
        self._session = session
        self._preprocess = Preprocessor(contract)

    @classmethod
    def open(
        cls,
        bundle: str | Path | Bundle,
        *,
        backend: str = "onnxruntime",
        device: str = "cpu",
        precision: str = "fp32",
        threads: int | None = None,
        batch_size: int = 4,
        self_test: bool = False,
    ) -> Segmenter:
        """Check a bundle's seal and open it on exactly this backend, device and precision.

        bundle: its folder, or the Bundle that `Bundle.open` has checked.
        self_test: also replay the golden images on this device before serving.
        Raises BundleError, BackendError, and ParityError where the self-test fails.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        session = open_session(opened, backend=backend, device=device, precision=precision, threads=threads)
        segmenter = cls(opened.contract, session, batch_size)
        if self_test:
            report = replay(opened, session, f"{backend} {device} {precision}")
            if not report.passed:
                breaches = "; ".join(report.breaches)
                raise ParityError(f"{opened.root}: self-test failed, this device must not serve: {breaches}")
        return segmenter

    @property
    def info(self) -> SessionInfo:
        """Backend, device, precision and versions that really run."""
        return self._session.info

    @overload
    def predict(self, images: Image) -> Prediction: ...  # type: ignore[overload-overlap]  # str is a sequence

    @overload
    def predict(self, images: Sequence[Image]) -> list[Prediction]: ...

    def predict(self, images: Image | Sequence[Image]) -> Prediction | list[Prediction]:
        """Segment one image, or a list of images of any sizes, in order.

        An image is a path, or uint8 (H, W) gray or (H, W, 3) RGB. Raises InputError for the first bad one.
        """
        if isinstance(images, (np.ndarray, str, Path)):
            return next(self.predict_each([images]))
        return list(self.predict_each(images))

    def predict_each(self, images: Iterable[Image]) -> Iterator[Prediction]:
        """Like `predict` for any number of images, holding one batch of them in memory at a time."""
        numbered = enumerate(images)
        while batch := list(itertools.islice(numbered, self.batch_size)):
            names = [str(image) if isinstance(image, (str, Path)) else f"image {i}" for i, image in batch]
            pixels = [
                read_image(image) if isinstance(image, (str, Path)) else check_image(image, name)
                for name, (_, image) in zip(names, batch, strict=True)
            ]
            tensors = [self._preprocess(array, name) for array, name in zip(pixels, names, strict=True)]
            logits = checked_infer(self._session, np.stack(tensors), self.contract)
            for name, array, one in zip(names, pixels, logits, strict=True):
                yield self._decide(name, array, one)

    def _decide(self, name: str, image: npt.NDArray[np.uint8], logits: npt.NDArray[np.float32]) -> Prediction:
        masks = masks_from_logits(logits, self.contract, *image.shape[:2])
        lesions = itertools.chain.from_iterable(
            find_lesions(mask, label) for mask, label in zip(masks, self.contract.classes, strict=True)
        )
        return Prediction(name, image, masks, tuple(lesions))
