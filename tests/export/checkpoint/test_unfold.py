"""The network of a bundle, read back from its ONNX artefact."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open

from tumorseg_export.checkpoint import unfold as module
from tumorseg_export.checkpoint.unfold import trace, unfold
from tumorseg_export.commands.unfold import unfold as command
from tumorseg_runtime.bundle.bundle import Bundle, sha256_of
from tumorseg_runtime.core.errors import BundleError, InputError
from tumorseg_runtime.inference.segmenter import Segmenter
from tumorseg_train.demo.demo import SHIPPED
from tumorseg_train.networks.mirrored import Mirrored
from tumorseg_train.networks.models import build_model, load_exactly
from tumorseg_train.networks.statistics import estimate_statistics, is_folded
from tumorseg_train.networks.weights_file import read_state_dict

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def network(tiny_bundle: Bundle) -> torch.nn.Module:
    return network_of(tiny_bundle)


def network_of(bundle: Bundle) -> torch.nn.Module:
    model = build_model(
        bundle.model["architecture"],
        bundle.model["encoder"],
        channels=3,
        classes=len(bundle.contract.classes),
    )
    load_exactly(model, unfold(bundle.root), "the weights")
    return model.eval()


def test_answers_as_the_artefact_does_also_with_statistics(
    network: torch.nn.Module, tiny_bundle: Bundle
) -> None:
    bundle = tiny_bundle
    image, served = input_and_logits(bundle, "fp32")
    with torch.inference_mode():
        before = network(image)[0]
    assert (before - served).abs().max() < 1e-3 * served.std()
    assert is_folded(network)
    generator = torch.Generator().manual_seed(0)
    estimate_statistics(network, [image[0], torch.randn(image[0].shape, generator=generator)])
    assert not is_folded(network)
    with torch.inference_mode():
        after = network(image)[0]
    assert (after - before).abs().max() < 1e-3 * before.std()
    norm = network.get_submodule("encoder.bn1")
    assert float(norm.running_mean.abs().max()) > 0  # of what reaches it, no longer none


def test_a_mirrored_network_is_read_back_whole() -> None:
    bundle = Bundle.open(SHIPPED)
    image, served = input_and_logits(bundle, "fp16")
    with torch.inference_mode():
        mirrored = Mirrored(network_of(bundle))(image)[0]
    assert (mirrored - served).abs().max() < 0.02 * served.std()  # what FP16 costs


def input_and_logits(bundle: Bundle, precision: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Of a golden image: float32 (1, C, h, w), and what the artefact answers."""
    with Segmenter.open(bundle, precision=precision) as segmenter:
        image = torch.from_numpy(segmenter.prepare(segmenter_frame(bundle)))[None].float()
        return image, torch.from_numpy(segmenter.predict(golden_image(bundle)).logits)


def golden_image(bundle: Bundle) -> Path:
    return bundle.root / "golden" / f"{bundle.golden[0]}.png"


def segmenter_frame(bundle: Bundle):  # type: ignore[no-untyped-def]
    from tumorseg_runtime.inference.prediction import to_frame

    return to_frame(golden_image(bundle), "golden")


def test_another_network_and_a_damaged_bundle_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = build_model("unet", "resnet18", channels=3, classes=1)
    with monkeypatch.context() as patched:
        patched.setattr(module, "build_model", lambda *names, **options: other)
        with pytest.raises(InputError, match="cannot be read back; keep the run"):
            unfold(SHIPPED)
    with pytest.raises(InputError, match="follows no convolution"):
        trace(torch.nn.Sequential(torch.nn.BatchNorm2d(3)), torch.zeros(1, 3, 8, 8))
    broken = tmp_path / "bundle"
    shutil.copytree(SHIPPED, broken)
    (broken / "model.fp16.onnx").write_bytes((SHIPPED / "model.fp16.onnx").read_bytes()[:-1])
    with pytest.raises(BundleError, match=r"model\.fp16\.onnx"):
        unfold(broken)
    with pytest.raises(InputError, match="a new file that ends in"):
        command.main([str(SHIPPED), "--out", str(tmp_path / "weights.pth")], standalone_mode=False)


def test_the_command_writes_what_train_starts_from(tiny_bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "weights.safetensors"
    result = CliRunner().invoke(command, [str(tiny_bundle.root), "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["sha256"] == sha256_of(out)
    written, read = read_state_dict(out), unfold(tiny_bundle.root)
    reached = [key for key in read if key in written and not key.endswith("num_batches_tracked")]
    assert len(written) == len(read)
    assert all(torch.equal(written[key], read[key]) for key in reached)
    with safe_open(out, "pt") as file:
        assert file.metadata()["split_sha256"] == tiny_bundle.provenance["split_sha256"]
