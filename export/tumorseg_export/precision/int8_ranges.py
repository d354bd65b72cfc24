"""What INT8 cuts activations to, from the calibration images.

Three ways to choose it, of which the search takes the one that decides best: the largest values, the values
that all but one in 10,000 stay within, and the cut with the least squared error of rounding and cutting
together. What moves values takes the range of what it gets, so that nothing is rounded twice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from tumorseg_export.precision.fp16_graph import Graph
from tumorseg_export.precision.int8_graph import LEVELS, Calibrated, Range, activations_of

if TYPE_CHECKING:
    from tumorseg_export.precision.trial import Trials
    from tumorseg_runtime.parity.reference import Golden

FloatArray = npt.NDArray[np.float64]
BINS = 4096
SEEN = 2**16  # values of a tensor of an image that are counted, evenly spaced; the extremes are of all
WITHIN = 1e-4  # share of the values that a percentile may cut
SMALLEST_CUT, CUTS = 0.2, 100
KINDS = ("largest", "percentile", "squared error")
KEEPS_RANGE = ("MaxPool", "Resize")


@dataclasses.dataclass
class Histogram:
    """Of one tensor over all images: extremes, with 0 between them, and counts between those."""

    low: float
    high: float
    counts: FloatArray

    @property
    def centres(self) -> FloatArray:
        """The middle of each bin."""
        return self.low + (np.arange(BINS) + 0.5) * (self.high - self.low) / BINS

    def cut(self, kind: str) -> Range:
        """The range by one of `KINDS`."""
        if kind == "largest" or self.high == self.low:
            return Range(self.low, self.high)
        if kind == "percentile":
            shares = np.cumsum(self.counts) / self.counts.sum()
            inside = (shares > WITHIN / 2) & (shares - self.counts / self.counts.sum() < 1 - WITHIN / 2)
            values = self.centres[inside]
            return Range(min(0.0, float(values[0])), max(0.0, float(values[-1])))
        return min(self._candidates(), key=self._squared_error)

    def _candidates(self) -> Iterator[Range]:
        for share in np.linspace(1, SMALLEST_CUT, CUTS):
            yield Range(self.low * share, self.high * share)

    def _squared_error(self, cut: Range) -> float:
        values = self.centres
        beyond = values - np.clip(values, cut.low, cut.high)
        step = (cut.high - cut.low) / LEVELS
        return float((self.counts * (beyond**2 + (beyond == 0) * step**2 / 12)).sum())


@dataclasses.dataclass(frozen=True)
class Seen:
    """histograms, means: of each activation, by its name; means of channels are float64 (C,)."""

    histograms: Mapping[str, Histogram]
    means: Mapping[str, FloatArray]


def observe(graph: Graph, images: Sequence[Golden], trials: Trials) -> Seen:
    """Run the FP32 graph on the images and count."""
    names = activations_of(graph)
    inner = [name for name in names if name in graph.producer]
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inner)
    image_name = model.graph.input[0].name
    lows, highs = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    kept: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in names}
    means: dict[str, list[FloatArray]] = {name: [] for name in names}
    with trials.session(model) as run:
        for image in images:
            outputs = run(image.tensor[None])
            outputs[image_name] = image.tensor[None]
            for name in names:
                values = outputs[name]
                lows[name] = min(lows[name], float(values.min()))
                highs[name] = max(highs[name], float(values.max()))
                flat = values.ravel()
                kept[name].append(flat[:: -(-flat.size // SEEN)].copy())
                means[name].append(values[0].reshape(values.shape[1], -1).mean(axis=1).astype(np.float64))
    histograms = {
        name: Histogram(
            lows[name],
            highs[name],
            np.histogram(
                np.concatenate(kept[name]), BINS, (lows[name], max(highs[name], lows[name] + 1e-12))
            )[0].astype(np.float64),
        )
        for name in names
    }
    return Seen(histograms, {name: np.mean(values, axis=0) for name, values in means.items()})


def calibrate(graph: Graph, seen: Seen, kind: str) -> Calibrated:
    """Ranges by one of `KINDS`."""
    ranges: dict[str, Range] = {}
    for name, histogram in seen.histograms.items():
        node = graph.nodes.get(name)
        if node is not None and node.op_type in KEEPS_RANGE and node.input[0] in ranges:
            ranges[name] = ranges[node.input[0]]
        elif node is not None and node.op_type == "Concat" and ranges.keys() >= set(node.input):
            parts = [ranges[one] for one in node.input]
            ranges[name] = Range(min(one.low for one in parts), max(one.high for one in parts))
        else:
            ranges[name] = histogram.cut(kind)
    return Calibrated(ranges, seen.means)
