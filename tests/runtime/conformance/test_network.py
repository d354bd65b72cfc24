"""The conformance networks under every backend of this machine: their logits and masks are known."""

from __future__ import annotations

import numpy as np
import pytest

from tumorseg_runtime.backends import (
    BACKENDS,
    MASK_BACKENDS,
    has_artefact,
    open_session,
    uses_folder,
    why_unavailable,
)
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.conformance.files import vectors
from tumorseg_runtime.conformance.network import conformance_bundle, expected_logits
from tumorseg_runtime.conformance.vector import CONTRACTS, Vector
from tumorseg_runtime.core.contract import SIGMOID, SOFTMAX
from tumorseg_runtime.core.errors import BackendError, BundleError
from tumorseg_runtime.core.session import checked_infer
from tumorseg_runtime.device.engines import OtherMachineError
from tumorseg_runtime.parity.rules import distance_rule
from tumorseg_runtime.processing.postprocess import Lesion, find_lesions, masks_from_logits
from tumorseg_runtime.processing.preprocess import Preprocessor, resize

LARGEST_ERROR = {"fp32": 1e-4, "fp16": 0.02, "bf16": 0.15, "int8": 0.15}
PIXELS = {
    "rgb": ("rgb.png", "near-gray-rgb.png", "wide-rgb.png"),
    "gray": ("gray.png", "tall-gray.png", "1-bit.png"),
}
CASES = [
    (name, backend, precision)
    for name in CONTRACTS
    for backend in BACKENDS
    for precision in LARGEST_ERROR
    if has_artefact(conformance_bundle(name), backend, precision)
]
UNDER_RULES = [(*case, SIGMOID) for case in CASES] + [
    (*case, SOFTMAX) for case in CASES if "deploy" in case[1]
]


def pixels_of(name: str) -> list[np.ndarray]:
    return [vector.pixels for vector in vectors() if vector.name in PIXELS[name]]


@pytest.mark.parametrize(("name", "backend", "precision", "rule"), UNDER_RULES)
def test_every_backend_gives_what_is_known(name: str, backend: str, precision: str, rule: str) -> None:
    bundle = conformance_bundle(name, rule)
    contract = bundle.contract
    if reason := why_unavailable(backend, "cpu"):
        pytest.skip(reason)
    try:
        session = open_session(bundle, backend=backend, device="cpu", precision=precision, threads=1)
    except OtherMachineError as error:
        pytest.skip(str(error))
    images = pixels_of("gray" if backend == "onnxruntime-deploy-gray" else name)
    tensors = [Preprocessor(contract)(image) for image in images]
    logits = np.stack([expected_logits(name, tensor) for tensor in tensors])
    assert logits.shape == (3, len(contract.classes), contract.height, contract.width)
    assert logits.std() > 1
    if backend in MASK_BACKENDS:
        shape = (-1, session.input.shape(contract)[0], contract.height, contract.width)
        planes = [resize(image, contract.height, contract.width) for image in images]
        batch = np.stack([p if p.ndim == 2 else p.transpose(2, 0, 1) for p in planes]).reshape(shape)
        distance = np.stack([distance_rule(one, contract) for one in logits])
        assert np.abs(distance).min() > 1e-5
        expected = (distance >= 0).astype(np.uint8)
        np.testing.assert_array_equal(checked_infer(session, batch, contract), expected)
        assert 0.02 < expected.mean() < 0.9
        return
    batch = np.stack(tensors)
    for size in (1, 3):
        got = np.concatenate(
            [checked_infer(session, batch[start : start + size], contract) for start in range(0, 3, size)]
        )
        assert np.abs(got - logits).max() <= LARGEST_ERROR[precision]


def test_every_backend_but_tensorrt_has_an_artefact() -> None:
    colour, gray = ({backend for one, backend, _ in CASES if one == name} for name in ("rgb", "gray"))
    assert colour == {name for name in BACKENDS if not uses_folder(name, "cuda")}
    assert gray == colour - {"onnxruntime-deploy-gray"}
    with pytest.raises((BackendError, BundleError)):
        open_session(conformance_bundle("rgb"), backend="tensorrt", device="cuda", precision="fp16")


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_folder_holds_these_files_and_no_others_and_they_are_small(name: str) -> None:
    bundle: Bundle = conformance_bundle(name)
    assert bundle.problems() == []
    assert max(record.bytes for record in bundle.files.values()) < 32_000


def test_logits_are_the_formulas_of_the_intensities() -> None:
    contract = CONTRACTS["rgb"]
    pixels = np.zeros((contract.height, contract.width, 3), np.uint8)
    pixels[0, 0], pixels[0, 1] = (255, 51, 0), (0, 0, 255)
    bright, warm = expected_logits("rgb", Preprocessor(contract)(pixels))
    np.testing.assert_allclose(bright[0, :3], [4 * 1.2 - 6.13, 4 - 6.13, -6.13], atol=1e-6)
    np.testing.assert_allclose(warm[0, :3], [5.5, -10.5, -2.5], atol=1e-6)
    contract = CONTRACTS["gray"]
    bright, dark = expected_logits("gray", Preprocessor(contract)(np.full((96, 32), 51, np.uint8)))
    np.testing.assert_allclose([bright[5, 5], dark[5, 5]], [12 * 0.2 - 6.13, 3.07 - 12 * 0.2], atol=1e-6)


def lesions_of(name: str, vector: Vector) -> dict[str, tuple[Lesion, ...]]:
    contract = CONTRACTS[name]
    logits = expected_logits(name, Preprocessor(contract)(vector.pixels)).astype(np.float32)
    masks = masks_from_logits(logits, contract, *vector.pixels.shape[:2])
    return {label: find_lesions(mask, label) for label, mask in zip(contract.classes, masks, strict=True)}


def test_lesions_are_few_on_large_images_and_beyond_16_bits() -> None:
    large = [vector for vector in vectors() if vector.pixels.size > 1_000_000]
    assert len(large) == 4
    for vector in large:
        for name in vector.contracts:
            found = lesions_of(name, vector)
            assert sum(map(len, found.values())) <= 20
            assert found["bright"][0].area_px > 2**16


def test_a_scene_has_nested_lesions_touching_corners_all_borders_and_a_line_of_one_pixel() -> None:
    (vector,) = [vector for vector in vectors() if vector.name == "network-size-gray.png"]
    boxes = {lesion.box: lesion.area_px for lesion in lesions_of("rgb", vector)["bright"]}
    height, width = vector.pixels.shape
    ring, island = (36, 24, 36, 28), (48, 34, 12, 8)
    assert boxes[ring] == 36 * 28 - 24 * 20
    assert boxes[island] == 12 * 8
    assert boxes[30, 6, 15, 10] == 9 * 6 + 6 * 4  # two boxes, joined at a corner
    assert boxes[48, 58, 30, 1] == 30
    borders = [(left == 0, top == 0, left + w == width, top + h == height) for left, top, w, h in boxes]
    assert np.any(borders, axis=0).all()
    assert len(boxes) == 7
