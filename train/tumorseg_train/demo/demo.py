"""The demo: open a bundle with its self-test, segment phantoms, verify, break copies on purpose."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.bundle.bundle import INDEX, Artefact, Bundle
from tumorseg_runtime.core.errors import CheckFailedError, InputError
from tumorseg_runtime.core.progress import Tell, parts, silent
from tumorseg_runtime.inference.segmenter import Segmenter, door_of
from tumorseg_runtime.parity.verify import PASSED, UNVERIFIED, Verification, verify_bundle
from tumorseg_train.data.phantoms import draw_brain, draw_breast
from tumorseg_train.demo.broken_copies import Refusal, break_copies

SHIPPED = Path(__file__).parent / "bundle"
SEED = 0
SIZE = (512, 512)  # (height, width) of the phantoms in pixels

BoolArray = npt.NDArray[np.bool_]
UInt8Array = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A phantom with the mask that was found. pixels: uint8 (H, W). truth, mask: bool (H, W)."""

    name: str
    pixels: UInt8Array
    truth: BoolArray
    mask: BoolArray

    @property
    def dice(self) -> float:
        """Of the mask with the truth, 0..1; 1 where both are empty."""
        total = int(self.mask.sum()) + int(self.truth.sum())
        return 2 * int((self.mask & self.truth).sum()) / total if total else 1.0

    @property
    def figures(self) -> str:
        """What was found, for people."""
        found, drawn = int(self.mask.sum()), int(self.truth.sum())
        if drawn:
            return f"Dice {self.dice:.2f} ({found} pixels found, {drawn} drawn)"
        return (
            f"{found} pixels found where nothing was drawn" if found else "left empty, and nothing was drawn"
        )


@dataclasses.dataclass(frozen=True)
class Demo:
    """What the demo has shown; `seconds` from the bundle's opening to the last refusal."""

    bundle: Bundle
    artefact: Artefact
    cases: tuple[Case, ...]
    verification: Verification
    refusals: tuple[Refusal, ...]
    seconds: float

    @property
    def verdict(self) -> str:
        """One sentence."""
        statuses = [check.status for check in self.verification.checks]
        return (
            f"{self.bundle.name} decides on this machine as PyTorch did at export ({statuses.count(PASSED)} "
            f"of {len(statuses)} checks passed, {statuses.count(UNVERIFIED)} could not be run), and both "
            "broken copies were refused"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without pixels."""
        return {
            "bundle": {"name": self.bundle.name, "sha256": self.bundle.digest()},
            "artefact": self.artefact.file,
            "cases": [
                {
                    "name": case.name,
                    "dice": case.dice,
                    "found_px": int(case.mask.sum()),
                    "drawn_px": int(case.truth.sum()),
                }
                for case in self.cases
            ],
            "verification": self.verification.to_dict(),
            "refusals": [dataclasses.asdict(refusal) for refusal in self.refusals],
            "seconds": round(self.seconds, 1),
        }


def find_bundle(given: Path | None) -> Path:
    """The bundle that was asked for, or the shipped one; raises InputError where this package has none."""
    if given is not None:
        return given
    if not (SHIPPED / INDEX).is_file():
        raise InputError(
            "no bundle comes with this installation, expected one to show: give --bundle PATH (made by "
            "`tumorseg export RUN --out PATH`, or by `make train export` in a clone)"
        )
    return SHIPPED


def draw_scenes() -> list[tuple[str, UInt8Array, BoolArray]]:
    """(name, uint8 (H, W), bool (H, W) of the drawn lesions): two organs, each with and without a tumour."""
    generators = [np.random.default_rng([SEED, index]) for index in range(4)]
    return [
        ("brain MRI phantom", *draw_brain(generators[0], SIZE, 1)),
        ("breast ultrasound phantom", *draw_breast(generators[1], SIZE, 1)),
        ("brain MRI phantom without a tumour", *draw_brain(generators[2], SIZE, 0)),
        ("breast ultrasound phantom without a tumour", *draw_breast(generators[3], SIZE, 0)),
    ]


def run_demo(root: Path, log: Callable[[str], None] = lambda line: None, tell: Tell = silent) -> Demo:
    """Run the demo with the bundle in `root`, on ONNX Runtime's CPU provider.

    log: called with one line per finished step. tell: the share that is done.
    Raises BundleError, BackendError, ParityError where the bundle is not right, and CheckFailedError where it
    is not verified or a broken copy is not refused.
    """
    started = time.perf_counter()
    opening, segmenting, verifying, breaking = parts(tell, [3, 1, 6, 2])
    bundle = Bundle.open(root)
    artefact = choose_artefact(bundle)
    segmenter = Segmenter.open(bundle, precision=artefact.precision, self_test=True, tell=opening)
    log(f"{bundle.name}: every hash is right, self-test passed on {segmenter.info.backend} cpu")
    scenes = draw_scenes()
    predictions = segmenter.predict([pixels for _, pixels, _ in scenes])
    cases = tuple(
        Case(*scene, prediction.mask) for scene, prediction in zip(scenes, predictions, strict=True)
    )
    for case in cases:
        log(f"  {case.name}: {case.figures}")
    segmenting(1.0)
    verification = verify_bundle(root, door_of, tell=verifying)
    for check in verification.checks:
        log(f"verify: {check.backend} {check.device} {check.precision}: {check.status}: {check.detail}")
    if not verification.passed:
        raise CheckFailedError(f"{root}: is not verified on this machine: tumorseg verify {root} says why")
    refusals = break_copies(bundle, artefact)
    breaking(1.0)
    for refusal in refusals:
        log(f"broken on purpose: {refusal.what}")
        log(f"  the {refusal.guard} refuses it: {refusal.message}")
    return Demo(bundle, artefact, cases, verification, refusals, time.perf_counter() - started)


def choose_artefact(bundle: Bundle) -> Artefact:
    """The bundle's ONNX artefact, FP32 before FP16; raises BundleError where it has none."""
    precisions = [one.precision for one in bundle.artefacts if one.format == "onnx"]
    return bundle.artefact("onnx", min(precisions, default="fp32", key=("fp32", "fp16", "bf16").index))
