"""Parity of the deploy forms: resized pixels in, masks out, and no logits that could be compared.

The pixels that they are given must become PyTorch's tensor, bit for bit, under the contract's table. A pixel
of the mask may differ from PyTorch's decision only where PyTorch's logit lies within the error that the
budget allows around the threshold; how many may, is the budget's, too. The errors stay unknown: NaN.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from tumorseg_benchmarks.parity.references import Reference
from tumorseg_benchmarks.variants.candidates import Candidate
from tumorseg_benchmarks.variants.variants import Variant
from tumorseg_runtime.backends import FORMATS, MASK_BACKENDS, open_session, why_unavailable
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError, BundleError, InputError
from tumorseg_runtime.core.session import Session
from tumorseg_runtime.images.frame import Frame
from tumorseg_runtime.inference.segmenter import Segmenter
from tumorseg_runtime.parity.compare import (
    Budget,
    ImageParity,
    ParityReport,
    decision_breaches,
    differing_bits,
)
from tumorseg_runtime.parity.mask_diff import compare_masks
from tumorseg_runtime.processing.preprocess import Preprocessor

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]
LABELS = {
    "onnxruntime-deploy": "ONNX deploy form, ONNX Runtime CPU",
    "onnxruntime-deploy-gray": "ONNX deploy form for gray, ONNX Runtime CPU",
}


def deploy_candidates(bundle: Bundle) -> list[Candidate]:
    """The deploy forms that the bundle holds, opened on the CPU; none where it holds none."""
    found = []
    for backend in MASK_BACKENDS:
        for artefact in bundle.artefacts:
            if artefact.format in FORMATS[backend]:
                variant = Variant(LABELS[backend], artefact.format, backend, "cpu", artefact.precision)
                found.append(_open(bundle, variant))
    return found


def _open(bundle: Bundle, variant: Variant) -> Candidate:
    if reason := why_unavailable(variant.engine, variant.device):
        return Candidate(variant, None, reason)
    try:
        session = open_session(
            bundle, backend=variant.engine, device=variant.device, precision=variant.precision
        )
    except (BackendError, BundleError, InputError) as error:
        return Candidate(variant, None, str(error), failed=True)
    return Candidate(variant, session)


def fitting(session: Session, reference: Reference, contract: Contract) -> Reference | None:
    """The images that the session takes: the gray ones where it has one plane and the contract three; None
    where there is none."""
    if session.input.shape(contract)[0] == contract.channels:
        return reference
    kept = [index for index, image in enumerate(reference.images) if image.pixels().ndim == 2]
    return _only(reference, kept) if kept else None


def _only(reference: Reference, kept: Sequence[int]) -> Reference:
    tensor, truth = reference.tensor, reference.truth
    return dataclasses.replace(
        reference,
        images=tuple(reference.images[index] for index in kept),
        logits=tuple(reference.logits[index] for index in kept),
        tensor=(lambda index: tensor(kept[index])) if tensor else None,
        truth=(lambda index: truth(kept[index])) if truth else None,
        groups=tuple(reference.groups[index] for index in kept) if reference.groups else (),
    )


def compare_deploy(
    session: Session,
    label: str,
    reference: Reference,
    contract: Contract,
    indices: Sequence[Sequence[int]],
    each: Callable[[int, BoolArray], None],
) -> ParityReport:
    """Like `parity.compare`, for a session that gives masks. indices: images of each call; the last call may
    be filled up with images that were judged before."""
    segmenter, preprocess = Segmenter(contract, session, len(indices[0])), Preprocessor(contract)
    scale, budget = reference.unit, reference.budget(session.info.precision)
    found: dict[int, ImageParity] = {}
    for call in indices:
        frames = [Frame(reference.images[i].name, reference.images[i].pixels()) for i in call]
        planes = [segmenter.prepare(frame) for frame in frames]
        masks = session.infer(np.stack(planes))
        for place, index in enumerate(call):
            if index in found:
                continue
            mask = masks[place] if place < len(masks) else np.empty(0, np.uint8)
            tensors = None
            if reference.tensor:
                tensors = reference.tensor(index), _normalised(planes[place], preprocess)
            found[index] = compare_mask(
                frames[place].name,
                reference.logits[index],
                mask,
                contract.logit_threshold,
                scale,
                budget,
                tensors,
            )
            if mask.shape == reference.logits[index].shape:
                each(index, mask == 1)
    info = session.info
    images = tuple(found[index] for index in sorted(found))
    return ParityReport(
        label, info.backend, info.device, info.precision, info.versions, budget, scale, images
    )


def compare_mask(
    image: str,
    reference: FloatArray,
    mask: UInt8Array,
    logit_threshold: float,
    scale: float,
    budget: Budget,
    tensors: tuple[FloatArray, FloatArray] | None,
) -> ImageParity:
    """One image's mask uint8 (K, h, w) of 0 and 1 against PyTorch's logits (K, h, w)."""
    breaches = []
    differs = differing_bits(*tensors) if tensors else None
    if differs:
        breaches.append(f"{differs} values of the preprocessed tensor differ, expected 0")
    if mask.shape != reference.shape or mask.dtype != np.uint8:
        breaches.append(f"mask is {mask.dtype} {mask.shape}, expected uint8 {reference.shape}")
        return ImageParity(
            image, differs, math.nan, math.nan, math.nan, reference.size, reference.size, 0.0, tuple(breaches)
        )
    if undecided := int(np.count_nonzero(mask > 1)):
        breaches.append(f"{undecided} pixels of the mask are neither 0 nor 1, expected 0")
    distance = np.abs(reference.astype(np.float64) - logit_threshold)
    ours = reference >= np.float32(logit_threshold)
    decisions = compare_masks(ours, mask == 1, distance, budget.relative_error * scale)
    breaches += decision_breaches(decisions, budget)
    return ImageParity(
        image, differs, math.nan, math.nan, math.nan, reference.size, decisions.flipped, decisions.dice,
        tuple(breaches), None, decisions,
    )  # fmt: skip


def _normalised(planes: UInt8Array, preprocess: Preprocessor) -> FloatArray:
    """What the contract's table makes of resized planes (1 or C, h, w): float32 (C, h, w)."""
    return preprocess.normalise(
        planes[0] if len(planes) == 1 else np.ascontiguousarray(planes.transpose(1, 2, 0))
    )
