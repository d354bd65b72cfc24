"""The runtime's front door: a bundle on one backend, images in, masks at their original sizes out."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.backends import files_of, uses_folder
from tumorseg_runtime.backends.selection import AUTO, Opener, Selection, open_auto, open_choice
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError, InputError
from tumorseg_runtime.core.progress import Tell, silent
from tumorseg_runtime.core.session import HALVES, MASKS, STREAM, Session, SessionInfo
from tumorseg_runtime.images.frame import Frame, WindowedFile
from tumorseg_runtime.inference.batches import predict_batches
from tumorseg_runtime.inference.prediction import Image, Prediction
from tumorseg_runtime.inference.session_guard import SessionKeeper, check_timeout, run_within
from tumorseg_runtime.parity.margin import Band, read_band
from tumorseg_runtime.processing.batching import Form, HostForm, PixelForm, place_of
from tumorseg_runtime.processing.input_guard import InputGuard, read_guard
from tumorseg_runtime.processing.postprocess import find_lesions, masks_from_logits, resize_masks
from tumorseg_runtime.processing.spacing import measure

if TYPE_CHECKING:
    from tumorseg_runtime.inference.stream import StreamResult

BATCH_SIZE = 4  # images of one inference, unless told otherwise
SELF_TESTS = ("quick", "full")
CONFORMANCE_BAND = Band(0.05, "a self-test")  # any: it shows that margins are counted right


class Segmenter:
    """Segments images with one session. Results do not depend on which images share a batch.

    gives_masks: whether masks alone come, without logits: of the deploy forms, and where a GPU decides.
    resizes_masks: whether they were decided at the network's own size and then resized: of the deploy forms.
    channels: planes that the session takes; 1 for a form that takes gray images only.
    """

    def __init__(
        self,
        contract: Contract,
        session: Session,
        batch_size: int = BATCH_SIZE,
        *,
        band: Band | None = None,
        reopen: Callable[[], Session] | None = None,
        preprocess: str | None = None,
        logits: bool | str = True,
        kernel_cache: Path | None = None,
        guard: InputGuard | None = None,
    ) -> None:
        """band, guard: for `Prediction.margin` and `input_check`. reopen: opens a session in place of one
        that hung or died. preprocess, logits: as in `open`. kernel_cache: the GPU's compiled kernels."""
        if not isinstance(logits, bool) and logits != HALVES:
            raise InputError(f"logits is {logits!r}, expected True, False or '{HALVES}'")
        limit = session.input.max_batch
        if batch_size < 1 or (limit is not None and batch_size > limit):
            most = f"{limit or 'any number'} (what {session.info.backend} takes)"
            raise InputError(f"batch size is {batch_size}, expected 1 to {most}")
        self.contract, self._info = contract, session.info
        self.batch_size, self.band, self.guard = batch_size, band, guard
        self.gives_masks = self.resizes_masks = session.output == MASKS
        self.channels = session.input.shape(contract)[0]
        self._form: Form
        if place_of(session.input, session.info.backend, preprocess) == "cuda":
            from tumorseg_runtime.inference.gpu_process import masks_of  # only a machine with a GPU needs it

            def on_gpu(one: Session) -> Any:
                return masks_of(one, contract, batch_size, band, logits, kernel_cache)

            session, again = on_gpu(session), reopen
            reopen = None if again is None else lambda: on_gpu(again())
            self.gives_masks = self.resizes_masks or logits is not True
            self._form, self._gather = PixelForm(contract, session.input), None
            self.ahead = 1  # batches under way beside the one waited for
        else:
            form = HostForm(contract, session.input)
            self._form, self._gather, self.ahead = form, form.gather, 0
        self._keeper = SessionKeeper(session, contract, reopen)

    @classmethod
    def open(
        cls,
        bundle: str | Path | Bundle,
        *,
        backend: str = "onnxruntime",
        device: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
        batch_size: int = BATCH_SIZE,
        self_test: bool | str = False,
        timeout_s: float | None = None,
        device_folder: str | Path | None = None,
        preprocess: str | None = None,
        logits: bool | str = False,
        public_key: str | Path | None = None,
        own_process: bool = True,
        tell: Tell = silent,
    ) -> Segmenter:
        """Check a bundle's seal and open it on exactly this backend, device and precision.

        bundle: its folder, or the Bundle that `Bundle.open` has checked. What serves are the bytes that
            were hashed, also where a session is opened again after a fault.
        backend: a name, or 'auto' for what is fastest here and passed parity (`backends.selection`).
        device, precision: None means 'cpu' and 'fp32', for 'auto' any.
        device_folder: what was built and measured here; None for the one that is found (`device.cache`).
        self_test: 'quick' (or True) or 'full': before serving, push the conformance files and the golden
            images through this very door (docs/parity.md); a session that is opened in place of one that
            failed is tested, too.
        timeout_s: most seconds that opening the session and its self-test may take.
        preprocess: where images are resized, 'cpu' or 'cuda'; None for 'cuda' where the session runs on a
            GPU's stream. Then pixels go up and masks come down, by kernels that are compiled for this GPU
            and kept in the device folder, if there is one (`inference.gpu_masks`).
        logits: on 'cuda', bring them down, too: True, or 'float16' rounded; elsewhere they always come.
        public_key: a PEM file; only a bundle that its owner signed is opened. tell: how far the self-test is.
        own_process: a GPU's session runs in one (`inference.gpu_process`); False shares this one's context.
        Raises BundleError, BackendError, CheckFailedError for the signature, ParityError for the self-test.
        """
        check_timeout(timeout_s)
        level = "quick" if self_test is True else self_test or None
        if level not in (None, *SELF_TESTS):
            raise InputError(f"self_test is {self_test!r}, expected False, True, 'quick' or 'full'")
        choice = Selection(backend, device or "cpu", precision or "fp32")
        opener: Opener | None = None
        if own_process and device != "cpu" and (device or backend == AUTO):
            from tumorseg_runtime.inference.gpu_process import open_apart as opener
        if isinstance(bundle, Bundle):
            opened = bundle if public_key is None else Bundle.open(bundle.root, public_key)
        else:
            opened = Bundle.open(bundle, public_key, lambda one: files_of(one, backend, choice.precision))
        folder = None if device_folder is None else Path(device_folder)
        if folder is None and (backend == AUTO or uses_folder(backend, choice.device)):
            from tumorseg_runtime.device.cache import find

            folder = find(opened)

        def door(
            of: Bundle, session: Session, size: int | None = None, logits: bool | str = True,
            band: Band | None = None, **options: Any,
        ) -> Segmenter:  # fmt: skip
            # only a self-test's rule runs on no stream although the session that serves does
            place = preprocess if of is opened or STREAM in session.input.memory else "cpu"
            return cls(
                of.contract, session, size or batch_size, band=band or CONFORMANCE_BAND, preprocess=place,
                logits=logits, kernel_cache=folder, guard=read_guard(of), **options,
            )  # fmt: skip

        def tested(session: Session) -> Session:
            if level is not None:
                from tumorseg_runtime.parity.verify import self_test as test  # only who tests needs it

                test(opened, session, door, level, tell)
            return session

        def open_first() -> tuple[Session, Selection]:
            if backend != AUTO:
                return tested(open_choice(opened, choice, threads, folder, opener)), choice
            session, chosen = open_auto(opened, device, precision, threads, folder, opener)
            return tested(session), chosen

        try:
            session, chosen = open_first() if timeout_s is None else run_within(open_first, timeout_s)
        except TimeoutError:
            raise BackendError(
                f"{opened.root}: {backend} on {choice.device} was not open within {timeout_s:g} s and is "
                "abandoned: allow more time, or check the device"
            ) from None
        segmenter = door(
            opened,
            session,
            logits=logits,
            band=read_band(opened, chosen.precision),
            reopen=lambda: tested(open_choice(opened, chosen, threads, folder, opener)),
        )
        segmenter._info = dataclasses.replace(session.info, choice=chosen.lines)
        return segmenter

    def __repr__(self) -> str:
        info, of = self._info, self.contract
        size, classes = f"{of.height}x{of.width}", ", ".join(of.classes)
        return f"<Segmenter {info.backend} {info.device} {info.precision}, {size}, {classes}>"

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back the session's memory and process; further images are a BackendError."""
        self._keeper.close()

    @property
    def info(self) -> SessionInfo:
        """Backend, device, precision and versions that really run."""
        return self._info

    @overload
    def predict(  # type: ignore[overload-overlap]  # str is a sequence
        self, images: Image, *, timeout_s: float | None = None
    ) -> Prediction: ...

    @overload
    def predict(self, images: Sequence[Image], *, timeout_s: float | None = None) -> list[Prediction]: ...

    def predict(
        self, images: Image | Sequence[Image], *, timeout_s: float | None = None
    ) -> Prediction | list[Prediction]:
        """Segment one image, or a list of images of any sizes, in order.

        An image is a path, a Frame, or uint8 (H, W) gray or (H, W, 3) RGB; a file must hold one frame
        (`read_frames` gives those of a file that holds more).
        timeout_s: most seconds of one inference, of a batch (`inference.session_guard`). Raises InputError
        for the first bad one, BackendError where the backend fails or takes longer.
        """
        if isinstance(images, (np.ndarray, str, Path, WindowedFile, Frame)):
            return next(self.predict_each([images], timeout_s=timeout_s))
        return list(self.predict_each(images, timeout_s=timeout_s))

    def predict_each(
        self, images: Iterable[Image], *, timeout_s: float | None = None
    ) -> Iterator[Prediction]:
        """Like `predict` for any number of images, holding one batch of them in memory at a time."""
        check_timeout(timeout_s)
        return predict_batches(self, images, timeout_s)

    def stream(
        self,
        images: Iterable[Image],
        *,
        max_pending: int = 2,
        drop: str = "block",
        batch_size: int = 1,
        timeout_s: float | None = None,
    ) -> Generator[StreamResult, None, None]:
        """Results of a stream of images, in order; decoding, inference and postprocessing overlap.

        max_pending: images that may wait to be decoded.
        drop: what happens when that many wait: 'oldest' drops the one that waits longest (live images),
            'block' lets the source wait (files).
        batch_size: most images of one inference; it takes those that are ready and waits for none.
        """
        from tumorseg_runtime.inference.stream import run_stream

        return run_stream(
            self, images, max_pending=max_pending, drop=drop, batch_size=batch_size, timeout_s=timeout_s
        )

    # The stages of a prediction; `stream` runs them on threads of their own.

    def prepare(self, frame: Frame) -> npt.NDArray[Any]:
        """What is made of one frame alone: the network's input (C, h, w), or pixels for the GPU."""
        return self._form.prepare(frame)

    def infer(self, prepared: Sequence[npt.NDArray[Any]], *, timeout_s: float | None = None) -> Any:
        """Checked logits float32 (N, K, h, w) of prepared frames, at most `batch_size` of them; uint8 masks
        from a session that gives masks, `gpu_masks.Decided` where the GPU has decided."""
        return self.submit(prepared, timeout_s=timeout_s)()

    def submit(
        self, prepared: Sequence[npt.NDArray[Any]], *, timeout_s: float | None = None
    ) -> Callable[[], Any]:
        """Begin an inference; what it returns waits for the answers. So many further batches as `ahead` says
        may be begun before; where that is 0, the answers are there already."""
        if self._gather is None:
            return self._keeper.submit(prepared, timeout_s)
        answer = self._keeper.infer(self._gather(prepared), timeout_s)
        return lambda: answer

    def decide(self, frame: Frame, answer: Any) -> Prediction:
        """Masks and lesions of one frame from its answer, as `infer` gives it."""
        size, close, logits = frame.pixels.shape[:2], None, None
        if self.gives_masks and isinstance(answer, np.ndarray):
            masks = resize_masks(answer, self.contract, *size)
        elif self.gives_masks:
            masks, close, logits = answer.masks, answer.close, answer.logits
        else:
            logits, masks = answer, masks_from_logits(answer, self.contract, *size)
        lesions = itertools.chain.from_iterable(
            find_lesions(mask, label) for mask, label in zip(masks, self.contract.classes, strict=True)
        )
        measured = tuple(measure(lesion, frame.spacings) for lesion in lesions)
        return Prediction(frame, masks, measured, logits, self.contract, self.band, close, self.guard)


def door_of(
    bundle: Bundle, session: Session, batch_size: int | None = None, logits: bool | str = True, **more: Any
) -> Segmenter:
    """The door that serves on a session, with the default batch size or the largest that it takes."""
    size = batch_size or min(BATCH_SIZE, session.input.max_batch or BATCH_SIZE)
    options: Any = {"band": CONFORMANCE_BAND, "guard": read_guard(bundle), "logits": logits, **more}
    return Segmenter(bundle.contract, session, size, **options)
