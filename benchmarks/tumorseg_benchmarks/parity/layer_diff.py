"""Layer diff: in which layer does an ONNX file begin to differ from PyTorch?

PyTorch's side is the run's network with every BatchNorm folded into its convolution, as the exporter folds it
(`tumorseg_export.onnx.fuse`), so that both sides have the same layers; hooks take what enters and leaves each
convolution. The ONNX side is the very graph with those tensors added to its outputs, under ONNX Runtime.

Layers are matched in the order in which they run: convolutions of equal weight shape are aligned so that
most of them fit, equal weights before equal shapes. What could not be matched is told. SNR is 10 log10 of the
power of PyTorch's values over the power of the error, in dB: 20 dB more are an error ten times smaller.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tumorseg_benchmarks.parity.layer_match import SAME_WEIGHTS, align, differ, snr_db
from tumorseg_runtime.backends.onnxruntime import open_file
from tumorseg_runtime.core.files import write_bytes

if TYPE_CHECKING:
    import onnx
    import torch

    from tumorseg_runtime.core.contract import Contract

FloatArray = npt.NDArray[np.float32]
KINDS = ("Conv", "ConvTranspose")
LEAST_DB = {"fp32": 80.0, "fp16": 30.0, "bf16": 15.0, "int8": 5.0}  # docs/parity.md
BYTES_AT_ONCE = 256 * 2**20  # of PyTorch's tensors that are held; the networks run once per such group


@dataclasses.dataclass(frozen=True)
class Layer:
    """One convolution on both sides, or the logits at the end.

    module: PyTorch's name. node: the ONNX node's. weights_differ: largest difference / largest weight, None
        where the graph does not hold them as constants. input_db: SNR of what enters, None where the sides
        differ in shape (padding is a node of its own). db: SNR of what leaves; infinite if equal bit for bit.
    between: operators of the graph between the layers before and this one.
    """

    module: str
    node: str
    weights_differ: float | None
    input_db: float | None
    db: float
    max_error: float
    between: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class LayerDiff:
    """All layers of one ONNX file on one image, in the order in which they run.

    least_db: below it a layer has diverged. unmatched: layers of one side alone.
    """

    artefact: str
    precision: str
    image: str
    least_db: float
    layers: tuple[Layer, ...]
    unmatched: tuple[str, ...]

    @property
    def first(self) -> Layer | None:
        """The first layer that has diverged; None where none has."""
        return next((layer for layer in self.layers if not self._fine(layer)), None)

    @property
    def line(self) -> str:
        """For people: the first layer that diverges and where to look."""
        layer, name = self.first, f"{self.artefact}: {self.image}"
        if layer is None:
            worst = min(self.layers, key=lambda one: one.db)
            return f"{name}: no layer diverges, lowest SNR {worst.db:.0f} dB in {worst.module}"
        line = (
            f"{name}: {layer.module} ({layer.node}) is the first layer that diverges, SNR {layer.db:.0f} dB"
        )
        if layer.input_db is not None and layer.input_db < self.least_db:
            where = ", ".join(layer.between) or "its input"
            line += f"; what enters it has {layer.input_db:.0f} dB: look at {where}"
        elif layer.weights_differ is not None and layer.weights_differ > SAME_WEIGHTS / 10:
            line += f"; its weights differ by {layer.weights_differ:.2g} of the largest one"
        elif layer.module != "logits":
            line += "; what enters it is right: look at its bias and attributes"
        return line

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        first = self.first
        return {**dataclasses.asdict(self), "first": first.module if first else None}

    def _fine(self, layer: Layer) -> bool:
        return layer.db >= self.least_db and (layer.input_db is None or layer.input_db >= self.least_db)


@dataclasses.dataclass(frozen=True)
class _Site:
    """A convolution of one side. where: module's name or node's index. weight: None if not constant."""

    where: Any
    name: str
    weight: FloatArray | None
    nbytes: int = 0


def measure_layer_diff(
    model: torch.nn.Module, contract: Contract, path: Path, precision: str, image: str, tensor: FloatArray
) -> LayerDiff:
    """Compare layer by layer on one image. model: the run's network. path: an ONNX file of the bundle.

    tensor: float32 (C, h, w). Raises BackendError where ONNX Runtime cannot open the graph.
    """
    import onnx

    from tumorseg_export.onnx.fuse import fuse

    fused = fuse(model, contract.channels)
    graph = onnx.load(path)
    modules, nodes = _modules(fused, tensor), _nodes(graph)
    pairs = align([site.weight for site in modules], [site.weight for site in nodes])
    layers: list[Layer] = []
    for group in _groups([(modules[a], nodes[b]) for a, b in pairs]):
        layers += _measure(fused, graph, group, tensor)
    layers.append(_logits(fused, graph, tensor))
    matched_a, matched_b = {a for a, _ in pairs}, {b for _, b in pairs}
    unmatched = [f"module {site.name}" for i, site in enumerate(modules) if i not in matched_a]
    unmatched += [f"node {site.name}" for i, site in enumerate(nodes) if i not in matched_b]
    return LayerDiff(path.name, precision, image, LEAST_DB[precision], tuple(layers), tuple(unmatched))


def _modules(model: torch.nn.Module, tensor: FloatArray) -> list[_Site]:
    """The convolutions of the network in the order in which they run, a site per run."""
    import torch

    sites: list[_Site] = []

    def note(name: str) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            weight = module.weight.detach().numpy()
            sites.append(_Site(name, name, weight, (inputs[0].numel() + output.numel()) * 4))

        return hook

    kinds = (torch.nn.Conv2d, torch.nn.ConvTranspose2d)
    _run(model, tensor, [(m, note(name)) for name, m in model.named_modules() if isinstance(m, kinds)])
    return sites


def _nodes(model: onnx.ModelProto) -> list[_Site]:
    from onnx import numpy_helper

    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    sites = []
    for index, node in enumerate(model.graph.node):
        if node.op_type in KINDS:
            tensor = weights.get(node.input[1])
            weight = None if tensor is None else np.asarray(numpy_helper.to_array(tensor), np.float32)
            sites.append(_Site(index, node.name or node.output[0], weight))
    return sites


def _groups(pairs: Sequence[tuple[_Site, _Site]]) -> Iterator[list[tuple[_Site, _Site]]]:
    group: list[tuple[_Site, _Site]] = []
    for pair in pairs:
        if group and sum(ours.nbytes for ours, _ in (*group, pair)) > BYTES_AT_ONCE:
            yield group
            group = []
        group.append(pair)
    if group:
        yield group


def _measure(
    model: torch.nn.Module, graph: onnx.ModelProto, pairs: Sequence[tuple[_Site, _Site]], tensor: FloatArray
) -> list[Layer]:
    seen: dict[str, tuple[FloatArray, FloatArray]] = {}

    def keep(name: str) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            seen[name] = inputs[0].numpy()[0].copy(), output.numpy()[0].copy()

        return hook

    wanted = {ours.name for ours, _ in pairs}
    _run(model, tensor, [(m, keep(name)) for name, m in model.named_modules() if name in wanted])
    ends = [graph.graph.node[theirs.where] for _, theirs in pairs]
    names = list(dict.fromkeys(name for node in ends for name in (node.input[0], node.output[0])))
    values = _outputs(graph, names, tensor)
    layers = []
    for (ours, theirs), node in zip(pairs, ends, strict=True):
        given, left = seen[ours.name]
        enters, leaves = values[node.input[0]], values[node.output[0]]
        same = left.shape == leaves.shape
        layers.append(
            Layer(
                ours.name,
                theirs.name,
                None if theirs.weight is None or ours.weight is None else differ(ours.weight, theirs.weight),
                snr_db(given, enters) if given.shape == enters.shape else None,
                snr_db(left, leaves) if same else -math.inf,
                float(np.abs(left - leaves).max()) if same else math.inf,
                _between(graph, theirs.where),
            )
        )
    return layers


def _logits(model: torch.nn.Module, graph: onnx.ModelProto, tensor: FloatArray) -> Layer:
    expected = _run(model, tensor, [])
    name = graph.graph.output[0].name
    got = _outputs(graph, [], tensor)[name]
    last = next(i for i, node in enumerate(graph.graph.node) if name in node.output)
    same = expected.shape == got.shape
    error = float(np.abs(expected - got).max()) if same else math.inf
    db = snr_db(expected, got) if same else -math.inf
    return Layer("logits", name, None, None, db, error, _between(graph, last))


def _run(model: torch.nn.Module, tensor: FloatArray, hooks: Sequence[tuple[Any, Any]]) -> FloatArray:
    """The network's logits (K, h, w), with hooks for this one run."""
    import torch

    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    try:
        with torch.inference_mode():
            return np.asarray(model(torch.from_numpy(tensor)[None])[0].numpy(), np.float32)
    finally:
        for handle in handles:
            handle.remove()


def _outputs(graph: onnx.ModelProto, names: Sequence[str], tensor: FloatArray) -> dict[str, FloatArray]:
    """Values of these tensors and of the output by name, float32, without the batch axis."""
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(graph)
    there = {value.name for value in (*model.graph.output, *model.graph.input)}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in there)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer_diff.onnx"
        write_bytes(path, model.SerializeToString(), durable=False)
        session = open_file(path, "cpu", None)
    source = graph.graph.input[0].name
    asked = [output.name for output in session.get_outputs()]
    values = dict(zip(asked, session.run(asked, {source: tensor[None]}), strict=True))
    found = {name: np.asarray(value[0], np.float32) for name, value in values.items()}
    return {source: tensor, **found}


def _between(model: onnx.ModelProto, index: int) -> tuple[str, ...]:
    """Operators on the way to a node from the convolutions before it, in the graph's order."""
    makers = {name: i for i, node in enumerate(model.graph.node) for name in node.output}
    nodes, found = [index], set[int]()
    while nodes:
        node = model.graph.node[nodes.pop()]
        inputs = node.input[:1] if node.op_type in KINDS else node.input
        for name in inputs:
            before = makers.get(name)
            if before is not None and before not in found and model.graph.node[before].op_type not in KINDS:
                found.add(before)
                nodes.append(before)
    return tuple(dict.fromkeys(model.graph.node[i].op_type for i in sorted(found)))
