"""The input guard: does an image look like those that the network was trained on?

`STATISTICS` of an image, brought to 256x256 gray by the rule of preprocessing, are held against those of the
training images, one kind of image (an organ, as a rule) at a time: the Mahalanobis distance over the limit
that the training images gave themselves is the image's score, and the nearest kind counts. Above 1 the image
is flagged. That is all: nothing is refused, and no mask is altered. `tumorseg calibrate` fits a guard.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.records import Count, Format, Line, Range, Sha256, to_json
from tumorseg_runtime.processing.preprocess import resize

FILE = "guard.json"
SCHEMA = 1
FORMAT = Format(
    "input guard",
    "copy or export the bundle again, or run `tumorseg calibrate` on the run again",
    SCHEMA,
    max_bytes=2**20,
    follow_links=False,
)
SIDE, BLOCKS = 256, 16  # pixels; squares along a side, of 16x16 pixels each
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
STEPS = (1, 4, 16)  # pixels of the squares whose means are compared with their neighbours'
BLACK, WHITE = 3, 252  # gray levels below and above which a pixel is one
# In the order of `statistics`; gray levels, logarithms of shares and of gray levels, and correlations.
STATISTICS = (
    *("dark pixels", "darker quarter", "median", "brighter quarter", "bright pixels"),
    *("share of black", "share of white"),
    *("fine steps along rows", "fine steps along columns", "steps along rows", "steps along columns"),
    *("coarse steps along rows", "coarse steps along columns"),
    *("corners", "left and right border", "upper and lower border"),
    *("top quarter", "second quarter", "third quarter", "bottom quarter"),
    *("mirror symmetry", "symmetry of top and bottom"),
)
FloatArray = npt.NDArray[np.float64]
Number = Annotated[float, Range(-1e6, 1e6)]  # so that no score is infinite
Positive = Annotated[float, Range(1e-6, 1e6)]
Vector = tuple[Number, ...]


@dataclasses.dataclass(frozen=True)
class KindOfImage:
    """One kind of training images.

    images: how many it was fitted on. mean, std: of each of `STATISTICS`.
    whitening: rows (N, N) that make standardised statistics uncorrelated and of variance 1.
    limit: largest root mean square of these that is taken for usual.
    """

    name: Line
    images: Count
    mean: Vector
    std: tuple[Positive, ...]
    whitening: tuple[Vector, ...]
    limit: Positive

    def __post_init__(self) -> None:
        sizes = {len(self.mean), len(self.std), len(self.whitening), *map(len, self.whitening)}
        if sizes != {len(STATISTICS)}:
            raise InputError(
                f"{self.name} has {sorted(sizes)} numbers where {len(STATISTICS)} are expected: fit it again"
            )

    def deviations(self, values: FloatArray) -> FloatArray:
        """Of each statistic, in standard deviations."""
        return np.asarray((values - np.asarray(self.mean)) / np.asarray(self.std))

    def score(self, values: FloatArray) -> float:
        """Distance of statistics (N,), 1 at the limit."""
        white = np.asarray(self.whitening) @ self.deviations(values)
        return math.sqrt(float((white**2).mean())) / self.limit


@dataclasses.dataclass(frozen=True)
class InputCheck:
    """What the guard says of one image.

    flagged: whether it is unlike the training images. score: its distance, 1 at the limit.
    nearest: the kind of training images that it is most like.
    reason: in words, None where it is not flagged.
    """

    flagged: bool
    score: float
    nearest: str
    reason: str | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class InputGuard:
    """What the training images look like.

    split_sha256: of the split whose training part it was fitted on.
    most_colour: largest mean difference of an image's colour channels that is taken for usual, gray levels.
    """

    split_sha256: Sha256
    most_colour: Positive
    kinds: tuple[KindOfImage, ...]

    def __post_init__(self) -> None:
        if not self.kinds:
            raise InputError("no kind of image is in it, expected one or more: fit it again")

    def to_text(self) -> str:
        """The text of `guard.json`."""
        return to_json({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=None)

    def check(self, pixels: npt.NDArray[np.uint8]) -> InputCheck:
        """Judge an image, uint8 (H, W) gray or (H, W, 3) RGB of any size."""
        return self.judge(*statistics(pixels))

    def judge(self, values: FloatArray, colour: float) -> InputCheck:
        """Judge an image by its `statistics`."""
        scores = [kind.score(values) for kind in self.kinds]
        nearest = self.kinds[int(np.argmin(scores))]
        shape, tint = min(scores), colour / self.most_colour
        score = max(shape, tint)
        if score <= 1:
            return InputCheck(False, score, nearest.name, None)
        if tint > shape:
            what = f"its colours differ by {colour:.0f} gray levels, expected at most {self.most_colour:.0f}"
        else:
            away = nearest.deviations(values)
            furthest = int(np.abs(away).argmax())
            side = "above" if away[furthest] > 0 else "below"
            what = (
                f"{STATISTICS[furthest]} {abs(away[furthest]):.1f} standard deviations {side} "
                f"{nearest.name}'s"
            )
        return InputCheck(True, score, nearest.name, f"{score:.3g} times the limit; {what}")


def read_guard(bundle: Bundle) -> InputGuard | None:
    """That of a bundle, None where it has none; raises BundleError for one that is not as it was sealed."""
    if FILE not in bundle.files:
        return None
    return FORMAT.parse_record(bundle.read(FILE), bundle.root / FILE, InputGuard)


def statistics(pixels: npt.NDArray[np.uint8]) -> tuple[FloatArray, float]:
    """`STATISTICS` of an image, float64 (N,), and the mean difference of its colour channels."""
    small, colour = resize(pixels, SIDE, SIDE), 0.0
    if small.ndim == 3:
        planes = np.ascontiguousarray(small.transpose(2, 0, 1))  # which numpy is much faster at
        colour = float((planes.max(axis=0) - planes.min(axis=0)).mean())
        small = np.asarray(planes.sum(axis=0, dtype=np.uint32) // 3, np.uint8)
    below = np.bincount(small.ravel(), minlength=256).cumsum()
    gray = small.astype(np.float64)
    blocks = _means(gray, SIDE // BLOCKS)
    steps = [np.abs(np.diff(means, axis=axis)).mean() for means in _at_steps(gray) for axis in (1, 0)]
    from_centre = np.arange(BLOCKS) - (BLOCKS - 1) / 2
    corners = np.hypot(from_centre[:, None], from_centre) > 0.5625 * BLOCKS
    return np.array([
        *(float(np.searchsorted(below, share * small.size)) for share in QUANTILES),
        math.log(below[BLACK - 1] / small.size + 1e-3),
        math.log(1 - below[WHITE] / small.size + 1e-3),
        *(math.log(step + 0.5) for step in steps),
        *(
            math.log(part.mean() + 1)
            for part in (blocks[corners], blocks[:, [0, -1]], blocks[[0, -1]])
        ),
        *(quarter.mean() for quarter in np.split(blocks, 4)),
        *(_correlation(blocks, np.flip(blocks, axis)) for axis in (1, 0)),
    ]), colour  # fmt: skip


def _at_steps(gray: FloatArray) -> list[FloatArray]:
    return [gray if size == 1 else _means(gray, size) for size in STEPS]


def _means(gray: FloatArray, size: int) -> FloatArray:
    """Of squares of so many pixels: (H, W) -> (H / size, W / size)."""
    height, width = gray.shape
    return np.asarray(gray.reshape(height // size, size, width // size, size).mean(axis=(1, 3)))


def _correlation(one: FloatArray, other: FloatArray) -> float:
    """0 where nothing varies."""
    a, b = one - one.mean(), other - other.mean()
    return float((a * b).sum() / (math.sqrt(float((a * a).sum() * (b * b).sum())) + 1))
