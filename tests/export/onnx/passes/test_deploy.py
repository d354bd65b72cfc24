import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from tumorseg_export.bundle.export import export_run
from tumorseg_export.checkpoint.context import ExportContext
from tumorseg_export.engine.tensorrt_build import BuildOptions, build_engine
from tumorseg_export.onnx import export as onnx_export
from tumorseg_export.onnx.export import to_onnx
from tumorseg_export.onnx.passes import deploy
from tumorseg_export.onnx.passes.deploy import gray_kernel, to_deploy
from tumorseg_export.targets import onnx_deploy as deploy_export
from tumorseg_export.targets.onnx_deploy import FILES, FORMAT, FORMAT_GRAY
from tumorseg_export.targets.registry import TARGETS
from tumorseg_runtime.backends.onnxruntime import open_file
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.conformance.network import conformance_bundle
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import CheckFailedError, InputError, ParityError
from tumorseg_runtime.device.engines import Profile
from tumorseg_runtime.parity.rules import decided_rule
from tumorseg_runtime.processing.preprocess import Preprocessor
from tumorseg_train.networks.run import Run

UInt8Array = npt.NDArray[np.uint8]
CONTRACT = Contract(height=64, width=64)


def run(model: onnx.ModelProto, folder: Path, batch: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    path = folder / "x.onnx"
    path.write_bytes(model.SerializeToString())
    session = open_file(path, "cpu", 1)
    (result,) = session.run(None, {session.get_inputs()[0].name: batch})
    return np.asarray(result)


def with_output(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The same graph that gives the float32 tensor of this name in place of its mask."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.output[:]
    result.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    result.graph.output[0].type.tensor_type.elem_type = 1
    return result


def all_values() -> UInt8Array:
    """(2, 3, 64, 64) whose every channel holds all 256 values, in other places."""
    ramp = np.tile(np.arange(256, dtype=np.uint8), 16).reshape(64, 64)
    return np.stack([np.stack([ramp, 255 - ramp, ramp.T]), np.stack([ramp.T, ramp, 255 - ramp])])


class Identity(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image[:, :1] * 1.0


@pytest.mark.slow
def test_every_value_is_normalised_to_the_contracts_bits(
    small_context: ExportContext, tmp_path: Path
) -> None:
    model = to_onnx(small_context.model, CONTRACT)
    result = to_deploy(model, CONTRACT, gray=False).model
    onnx.checker.check_model(result, full_check=True)
    pixels = all_values()
    got = run(with_output(result, "image_normalised"), tmp_path, pixels)
    preprocess = Preprocessor(CONTRACT)
    expected = np.stack([preprocess.normalise(image.transpose(1, 2, 0)) for image in pixels])
    assert np.array_equal(got.view(np.uint32), expected.view(np.uint32))


@pytest.mark.slow
@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_mask_is_that_of_the_float_graph(
    small_context: ExportContext, tmp_path: Path, gray: bool, size: int
) -> None:
    model = to_onnx(small_context.model, CONTRACT)
    result = to_deploy(model, CONTRACT, gray=gray).model
    onnx.checker.check_model(result, full_check=True)
    random = np.random.default_rng(1)
    plane = random.integers(0, 256, (size, 1, 64, 64), dtype=np.uint8)
    preprocess = Preprocessor(CONTRACT)
    logits = run(model, tmp_path, np.stack([preprocess.normalise(image[0]) for image in plane]))
    mask = run(result, tmp_path, plane if gray else np.repeat(plane, 3, axis=1))
    assert mask.dtype == np.uint8
    assert mask.shape == (size, 1, 64, 64)
    assert 0.05 < mask.mean() < 0.95
    decided = logits >= np.float32(CONTRACT.logit_threshold)
    close = np.abs(logits - CONTRACT.logit_threshold) < 1e-5 * logits.std()
    assert np.array_equal(mask[~close] == 1, decided[~close])
    assert close.mean() < 1e-3


def test_gray_form_is_exact_at_the_borders(tmp_path: Path) -> None:
    """Zeros beyond the border are zeros of normalised values, and no pixels of 0."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        network = torch.nn.Conv2d(3, 1, 7, padding=3).eval()
    contract = Contract(height=64, width=64, mean=(0.9, 0.1, 0.5), std=(0.2, 0.3, 0.4))  # far from each other
    model = to_onnx(network, contract)
    result = to_deploy(model, contract, gray=True).model
    pixels = np.full((2, 1, 64, 64), 3, np.uint8)
    preprocess = Preprocessor(contract)
    expected = run(model, tmp_path, np.stack([preprocess.normalise(image[0]) for image in pixels]))
    got = run(with_output(result, "logits"), tmp_path, pixels)
    border = np.abs(expected - expected[:, :, 32:33, 32:33]) > 1e-3
    assert border[:, :, :3].any()
    assert not border[:, :, 3:-3, 3:-3].any()
    assert np.abs(got - expected).max() < 1e-5 * np.abs(expected).max()


def test_gray_weights_give_the_same_number_for_every_value() -> None:
    kernel = np.random.default_rng(0).standard_normal((4, 3, 1, 1)).astype(np.float32)
    two = gray_kernel(kernel, CONTRACT)
    assert two.shape == (4, 2, 1, 1)
    table = Preprocessor(CONTRACT).table.astype(np.float64)  # (3, 256)
    expected = np.einsum("kc,cv->kv", kernel[:, :, 0, 0].astype(np.float64), table)
    got = two[:, 0, 0, 0, None] * table[0] + two[:, 1, 0, 0, None]
    assert np.abs(got - expected).max() < 1e-5


def test_under_softmax_the_largest_logit_above_0_decides_and_ties_go_to_the_first(tmp_path: Path) -> None:
    """A network that gives its pixels as logits, many of them equal."""
    contract = dataclasses.replace(
        CONTRACT, mean=(0.5,) * 3, std=(0.5,) * 3, classes=("a", "b", "c"), threshold=None, rule="softmax"
    )
    network = torch.nn.Conv2d(3, 3, 1, bias=False).eval()
    with torch.no_grad():
        network.weight[:] = torch.eye(3)[:, :, None, None]
    model = to_deploy(to_onnx(network, contract), contract, gray=False).model
    onnx.checker.check_model(model, full_check=True)
    table = Preprocessor(contract).table
    pixels = np.random.default_rng(4).choice(np.array([0, 100, 128, 200], np.uint8), (2, 3, 64, 64))
    logits = np.stack([table[channel][pixels[:, channel]] for channel in range(3)], axis=1)
    found = run(model, tmp_path, pixels)
    for mask, values in zip(found, logits, strict=True):
        np.testing.assert_array_equal(mask, decided_rule(values, contract))
    assert set(np.unique(found.sum(axis=1))) == {0, 1}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_no_decision(tmp_path: Path, bad: float) -> None:
    network = torch.nn.Conv2d(3, 1, 1).eval()
    with torch.no_grad():
        network.weight.zero_()
        network.bias.fill_(bad)
    model = to_deploy(to_onnx(network, CONTRACT), CONTRACT, gray=False).model
    assert set(np.unique(run(model, tmp_path, all_values()))) == {255}


@pytest.mark.slow
def test_threshold_itself_is_inside(tmp_path: Path) -> None:
    contract = dataclasses.replace(CONTRACT, threshold=0.7)
    network = torch.nn.Conv2d(3, 1, 1).eval()
    for value, inside in ((np.float32(contract.logit_threshold), 1), (np.float32(0.8), 0)):
        with torch.no_grad():
            network.weight.zero_()
            network.bias.fill_(float(value))
        model = to_deploy(to_onnx(network, contract), contract, gray=False).model
        assert set(np.unique(run(model, tmp_path, all_values()))) == {inside}


@pytest.mark.parametrize(("format", "channels"), [(FORMAT, 3), (FORMAT_GRAY, 1)])
def test_target_writes_and_records(
    small_context: ExportContext, tmp_path: Path, format: str, channels: int
) -> None:
    onnx_export.make(small_context, tmp_path)
    results = TARGETS[format].make(small_context, tmp_path)
    assert (results.artefact.file, results.artefact.format) == (FILES[format], format)
    facts = results.facts[format]
    assert facts["input"] == {
        "dtype": "uint8", "channels": channels, "layout": "NCHW", "height": 64, "width": 64,
    }  # fmt: skip
    session = open_file(tmp_path / FILES[format], "cpu", 1)
    table = Preprocessor(small_context.contract)
    pixels = np.stack([table.planes(item.pixels, channels) for item in small_context.golden])
    (masks,) = session.run(["mask"], {"image": pixels})
    for mask, item in zip(masks, small_context.golden, strict=True):
        assert np.count_nonzero((mask == 1) != (item.logits >= 0)) <= 2
    assert pixels.nbytes * (12 if channels == 1 else 4) == sum(i.tensor.nbytes for i in small_context.golden)


@pytest.mark.slow
def test_colour_does_not_fit_the_gray_form(small_context: ExportContext, tmp_path: Path) -> None:
    onnx_export.make(small_context, tmp_path)
    deploy_export.make(small_context, tmp_path, gray=True)
    session = open_file(tmp_path / FILES[FORMAT_GRAY], "cpu", 1)
    with pytest.raises(Exception, match="Got: 3 Expected: 1"):  # onnxruntime's own error
        session.run(None, {"image": all_values()})


@pytest.mark.slow
def test_mask_that_its_logits_do_not_say_is_refused(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide = deploy._decide

    def other(*arguments: Any) -> object:
        *rest, contract = arguments
        return decide(*rest, dataclasses.replace(contract, threshold=0.6))

    monkeypatch.setattr(deploy, "_decide", other)
    with pytest.raises(ParityError, match=r"model\.deploy\.onnx: .* pixels flipped"):
        export_run(tiny_run, tmp_path / "bundle", targets=["onnx", FORMAT])


@pytest.mark.slow
def test_gray_form_is_refused_where_it_does_not_fit(small_context: ExportContext, tmp_path: Path) -> None:
    gray = Contract(height=64, width=64, mean=(0.5,), std=(0.2,))
    with pytest.raises(InputError, match="gray already: take onnx-deploy"):
        deploy_export.make(dataclasses.replace(small_context, contract=gray), tmp_path, gray=True)
    model = to_onnx(Identity().eval(), CONTRACT)
    with pytest.raises(CheckFailedError, match="expected one plain Conv and 3: take the target onnx-deploy"):
        to_deploy(model, CONTRACT, gray=True)


def test_gray_contract_takes_one_plane(tmp_path: Path) -> None:
    gray = Contract(height=64, width=64, mean=(0.5,), std=(0.2,))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = torch.nn.Conv2d(1, 1, 3, padding=1).eval()
    model = to_deploy(to_onnx(network, gray), gray, gray=False).model
    onnx.checker.check_model(model, full_check=True)
    mask = run(model, tmp_path, all_values()[:, :1])
    assert set(np.unique(mask)) == {0, 1}


@pytest.mark.slow
@pytest.mark.parametrize("gray", [False, True])
def test_tensorrt_rtx_builds_it(small_context: ExportContext, tmp_path: Path, gray: bool) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    model = to_deploy(to_onnx(small_context.model, CONTRACT), CONTRACT, gray=gray).model
    contract = Contract(height=64, width=64, mean=(0.5,), std=(0.2,)) if gray else CONTRACT
    options = BuildOptions(Profile(1, 2, 3), capabilities=(89,))
    built = build_engine(trt, model.SerializeToString(), contract, options, lambda line: None, name="deploy")
    assert built.data


@pytest.mark.slow
def test_tensorrt_rtx_builds_the_rule_softmax() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    bundle = conformance_bundle("gray", "softmax")
    data = bundle.read(bundle.artefact(FORMAT, "fp32").file)
    options = BuildOptions(Profile(1, 2, 3), capabilities=(89,))
    assert build_engine(trt, data, bundle.contract, options, lambda line: None, name="deploy").data


@pytest.mark.slow
def test_bundle_holds_both_forms(tiny_run: Run, tiny_bundle: Bundle, tmp_path: Path) -> None:
    bundle = export_run(tiny_run, tmp_path / "bundle", targets=["onnx", FORMAT, FORMAT_GRAY])
    assert [artefact.format for artefact in bundle.artefacts] == ["onnx", FORMAT, FORMAT_GRAY]
    assert bundle.model[FORMAT_GRAY]["input"]["channels"] == 1
    assert bundle.artefact("onnx", "fp32").file == "model.onnx"
    card = (bundle.root / "MODEL_CARD.md").read_text()
    assert all(file in card for file in FILES.values())
    assert bundle.files["model.onnx"] == tiny_bundle.files["model.onnx"]
