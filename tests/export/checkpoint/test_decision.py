"""Networks under softmax: the background's channel is subtracted, and the export decides as the original."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import segmentation_models_pytorch as smp
import torch

from fakes.session import FakeSession
from tumorseg_export.bundle.export import export_checkpoint
from tumorseg_export.checkpoint import decision
from tumorseg_export.checkpoint.decision import AgainstBackground, Decision, choose_decision, to_export
from tumorseg_export.checkpoint.foreign import CheckpointOptions, open_foreign
from tumorseg_export.references.golden_images import choose_items, make_golden
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import InputError, ParityError
from tumorseg_runtime.inference.segmenter import Segmenter
from tumorseg_runtime.parity.budget import BUDGETS
from tumorseg_runtime.parity.reference import load_golden
from tumorseg_runtime.parity.replay import ONE_BY_ONE, replay
from tumorseg_runtime.processing.decision import decide, to_probabilities
from tumorseg_runtime.processing.preprocess import Preprocessor
from tumorseg_train.networks.models import ARCHITECTURES, build_model

NAMES = ("edema", "core", "background")
FLAGS = CheckpointOptions(
    architecture="unet", encoder="resnet18", images="phantoms", size=(64, 64), classes=NAMES, rule="softmax"
)


SIZES = {"pan": 128, "dpt": 224}  # of the network, where 64 will not do


def network(architecture: str = "unet", classes: int = 3) -> torch.nn.Module:
    """Random weights whose channels all win somewhere."""
    encoder = "tu-vit_tiny_patch16_224" if architecture == "dpt" else "resnet18"
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = build_model(architecture, encoder, channels=3, classes=classes).eval()
    with torch.inference_mode():
        logits = model(images(architecture))
    head = [one for one in model.segmentation_head.modules() if isinstance(one, torch.nn.Conv2d)][-1]
    with torch.no_grad():
        assert head.bias is not None
        head.bias -= logits.mean(dim=(0, 2, 3))
    return model


def images(architecture: str = "unet") -> torch.Tensor:
    size = SIZES.get(architecture, 64)
    return torch.from_numpy(np.random.default_rng(3).normal(0, 1, (2, 3, size, size)).astype(np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_folded_network_decides_by_the_originals_own_argmax(architecture: str) -> None:
    model = network(architecture)
    contract = Contract(classes=("a", "b"), threshold=None, rule="softmax")
    with torch.inference_mode():
        original = model(images(architecture))
    shares, winners = original.softmax(dim=1).numpy(), original.argmax(dim=1).numpy()
    best = original.topk(2, dim=1).values
    clear = (best[:, 0] - best[:, 1] > 1e-4).numpy()
    for background in range(3):
        folded = to_export(AgainstBackground(model, background))
        with torch.inference_mode():
            logits = folded(images(architecture))
            unfolded = AgainstBackground(model, background)(images(architecture))
            torch.testing.assert_close(logits, unfolded, rtol=0, atol=1e-5 * max(1.0, float(unfolded.std())))
        assert logits.shape == (2, 2, *original.shape[2:])
        others = [channel for channel in range(3) if channel != background]
        for image, logit in enumerate(logits.numpy()):
            masks, found = decide(logit, contract), to_probabilities(logit, contract)
            for mask, share, channel in zip(masks, found, others, strict=True):
                expected = winners[image] == channel
                np.testing.assert_array_equal(mask[clear[image]], expected[clear[image]])
                np.testing.assert_allclose(share, shares[image, channel], atol=1e-5)
    assert all(np.mean(winners == channel) > 0.05 for channel in range(3))


@pytest.mark.parametrize("background", [0, 1])
def test_two_classes_are_the_sigmoid_of_one_logit(background: int) -> None:
    model = network(classes=2)
    folded = to_export(AgainstBackground(model, background))
    head, own = folded.segmentation_head[0], model.segmentation_head[0]
    tumour = 1 - background
    assert torch.equal(head.weight[0], own.weight[tumour] - own.weight[background])
    assert torch.equal(head.bias[0], own.bias[tumour] - own.bias[background])
    with torch.inference_mode():
        shares, logit = model(images()).softmax(dim=1), folded(images())
    assert torch.allclose(torch.sigmoid(logit[:, 0]), shares[:, tumour], atol=1e-6)


def test_a_head_without_bias_is_folded_too() -> None:
    model = network()
    old = model.segmentation_head[0]
    model.segmentation_head[0] = torch.nn.Conv2d(16, 3, 3, padding=1, bias=False)
    folded = to_export(AgainstBackground(model.eval(), 1))
    assert folded.segmentation_head[0].bias is None
    assert model.segmentation_head[0].out_channels == 3  # the original stays
    assert old.out_channels == 3
    with torch.inference_mode():
        assert torch.allclose(folded(images()), AgainstBackground(model, 1)(images()), atol=1e-5)


def chosen(
    channels: int,
    names: tuple[str, ...] | None,
    given: str | None = None,
    known: str | None = None,
    threshold: float | None = None,
) -> Decision:
    return choose_decision(Path("w.pth"), channels, names, (given, known), threshold, lambda line: None)


def test_what_is_said_of_the_decision_is_used() -> None:
    assert chosen(1, None) == Decision(("tumour",), "sigmoid", 0.5)
    assert chosen(1, ("core",), threshold=0.3) == Decision(("core",), "sigmoid", 0.3)
    assert chosen(2, ("a", "b"), "sigmoid") == chosen(2, ("a", "b"), None, "sigmoid")
    assert chosen(2, ("a", "b"), "sigmoid", "sigmoid") == Decision(("a", "b"), "sigmoid", 0.5)
    assert chosen(2, ("background", "a"), "softmax") == Decision(("a",), "sigmoid", 0.5, 0)
    assert chosen(2, ("a", "Background"), None, "softmax", 0.2) == Decision(("a",), "sigmoid", 0.2, 1)
    assert chosen(3, NAMES, "softmax") == Decision(("edema", "core"), "softmax", None, 2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((3, NAMES), "w.pth: has 3 classes, and does not say how they become masks: give --rule sigmoid if"),
        ((2, ("background", "tumour")), "does not say how they become masks"),
        ((2, None, "softmax"), "has 2 classes, got names: none; give 2 by --classes .* as background"),
        ((1, None, "softmax"), "has one class, whose softmax is 1 everywhere"),
        ((1, ("background",), "softmax"), "has one class, whose softmax is 1 everywhere"),
        ((1, ("background",)), "the class background would be segmented as lesions"),
        ((3, ("a", "b", "c"), "softmax"), "know the channel of the background, 0 of the classes a, b, c are"),
        ((2, ("background", "BACKGROUND"), "softmax"), "2 of the classes"),
        ((3, NAMES, "sigmoid"), "under --rule sigmoid the class background would be segmented as lesions"),
        ((3, NAMES, "sigmoid", "softmax"), "--rule is sigmoid, the file's own activation says softmax"),
        ((3, NAMES, "softmax", None, 0.4), "--threshold is 0.4, expected none: .* the largest probability"),
    ],
)
def test_what_cannot_be_known_is_refused_with_the_reason(given: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        chosen(*given)


@pytest.mark.parametrize("activation", ["softmax", "softmax2d", "logsoftmax", "argmax"])
def test_the_activation_in_a_folder_is_the_rule(activation: str, tmp_path: Path) -> None:
    smp.Unet("resnet18", encoder_weights=None, classes=3).save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**values, "activation": activation}))
    said: list[str] = []
    flags = CheckpointOptions(images="phantoms", size=(64, 64), classes=NAMES)
    found = open_foreign(tmp_path, flags, said.append)
    assert (found.contract.rule, found.contract.classes) == ("softmax", ("edema", "core"))
    assert any(line.startswith(f"the activation {activation} is left off") for line in said)
    with torch.inference_mode():  # and not applied as well
        logits = found.load()(images())
    assert float(logits.max()) > 0 > float(logits.min())
    with pytest.raises(InputError, match="the file's own activation says softmax"):
        open_foreign(tmp_path, dataclasses.replace(flags, rule="sigmoid"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("softmax") / "w.pth"
    torch.save(network().state_dict(), path)
    return path


def exported(
    path: Path, out: Path, flags: CheckpointOptions = FLAGS, targets: tuple[str, ...] = ("onnx",)
) -> Bundle:
    return export_checkpoint(open_foreign(path, flags), out, targets=targets, golden=3, calibration=0)


@pytest.mark.slow
def test_a_bundle_gives_the_masks_of_the_original_network(weights: Path, tmp_path: Path) -> None:
    bundle = exported(weights, tmp_path / "b", targets=("onnx", "onnx-deploy", "onnx-fp16", "openvino"))
    assert (bundle.contract.rule, bundle.contract.threshold) == ("softmax", None)
    assert bundle.contract.classes == ("edema", "core")
    assert bundle.model["softmax"] == {"channels": 3, "background": 2}
    card = (bundle.root / "MODEL_CARD.md").read_text()
    assert "softmax: a pixel belongs to the class of the largest logit where it is above 0" in card
    assert "channel 2, the background's, is subtracted" in card
    model, preprocess = network(), Preprocessor(bundle.contract)
    seen = set()
    for backend in ("onnxruntime", "onnxruntime-deploy", "openvino"):
        segmenter = Segmenter.open(bundle, backend=backend, threads=1, self_test="quick")
        for item in load_golden(bundle):
            with torch.inference_mode():
                logits = model(torch.from_numpy(preprocess(item.pixels))[None])
            large = torch.nn.functional.interpolate(logits, item.pixels.shape[:2], mode="bilinear")
            winner = large[0].argmax(dim=0).numpy()
            found = segmenter.predict(item.pixels)
            assert not found.masks.all(axis=0).any()
            wrong = np.mean([mask != (winner == number) for number, mask in enumerate(found.masks)])
            assert wrong < (0.1 if segmenter.gives_masks else 1e-4)  # a deploy form resizes masks
            seen |= {lesion.label for lesion in found.lesions}
            if not segmenter.gives_masks:
                shares = large.softmax(dim=1)[0, :2].numpy()
                np.testing.assert_allclose(found.probabilities(), shares, atol=1e-4)
    assert seen == {"edema", "core"}
    assert onnx.load(bundle.root / "model.onnx").graph.output[0].type.tensor_type.shape.dim[1].dim_value == 2


@pytest.mark.slow
def test_of_two_classes_one_logit_is_sealed(tmp_path: Path) -> None:
    torch.save(network(classes=2).state_dict(), tmp_path / "w.pth")
    flags = dataclasses.replace(FLAGS, classes=("background", "tumour"), threshold=0.4)
    bundle = exported(tmp_path / "w.pth", tmp_path / "b", flags)
    contract = bundle.contract
    assert (contract.rule, contract.threshold, contract.classes) == ("sigmoid", 0.4, ("tumour",))
    model = network(classes=2)
    found = Segmenter.open(bundle, threads=1).predict(item := load_golden(bundle)[0].pixels)
    with torch.inference_mode():
        logits = model(torch.from_numpy(Preprocessor(contract)(item))[None])
    share = (
        torch.nn.functional.interpolate(logits, item.shape[:2], mode="bilinear").softmax(dim=1)[0, 1].numpy()
    )
    np.testing.assert_allclose(found.probabilities()[0], share, atol=1e-4)
    np.testing.assert_array_equal(
        found.mask[abs(share - 0.4) > 1e-4], (share >= 0.4)[abs(share - 0.4) > 1e-4]
    )


def other_channel(model: AgainstBackground) -> torch.nn.Module:
    """The first channel taken for the background, which is the last."""
    return AgainstBackground(model.network, 0).folded()


def not_subtracted(model: AgainstBackground) -> torch.nn.Module:
    """The background's channel is left out, and that is all."""
    network = copy.deepcopy(model.network)
    network.register_forward_hook(lambda module, images, logits: logits[:, :2])
    return network


def softmax_in_the_graph(model: AgainstBackground) -> torch.nn.Module:
    """The network's softmax stays, and the runtime's comes on top of it."""
    network = model.folded()
    network.segmentation_head.append(torch.nn.Softmax(dim=1))
    return network


def weights_alone(model: AgainstBackground) -> torch.nn.Module:
    """Biases are forgotten."""
    network = model.folded()
    network.segmentation_head[0].bias = torch.nn.Parameter(
        model.network.segmentation_head[0].bias[:2].detach()
    )
    return network


@pytest.mark.slow
def test_heads_that_were_folded_wrongly_do_not_pass_on_the_images_of_an_export(weights: Path) -> None:
    checkpoint = open_foreign(weights, FLAGS)
    model, contract = checkpoint.load(), checkpoint.contract
    with checkpoint.images() as manifest:
        golden = make_golden(model, manifest, choose_items(manifest, 3), contract)

    def passes(fold: Callable[[AgainstBackground], torch.nn.Module]) -> bool:
        network, session = fold(model), FakeSession()
        session.infer = lambda batch: network(torch.from_numpy(batch)).detach().numpy()
        return replay(
            Segmenter(contract, session, 1), golden, BUDGETS["fp32"], ONE_BY_ONE, artefact="head"
        ).passed

    assert passes(to_export)
    for wrong in (other_channel, not_subtracted, softmax_in_the_graph, weights_alone):
        assert not passes(wrong), wrong.__name__


@pytest.mark.slow
def test_a_head_that_was_folded_wrongly_is_refused(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tumorseg_export.bundle.export.to_export", other_channel)
    with pytest.raises(ParityError, match="decides other than PyTorch"):
        exported(weights, tmp_path / "b")
    assert not (tmp_path / "b").exists()
    assert decision.to_export is to_export
