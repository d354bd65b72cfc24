import dataclasses
import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fakes.golden import golden_report
from tumorseg_export.bundle import export
from tumorseg_export.bundle.export import export_run
from tumorseg_export.checkpoint.provenance import training_facts
from tumorseg_export.onnx import export as onnx_export
from tumorseg_export.references.calibration_images import CALIBRATION
from tumorseg_export.targets.registry import TARGETS, Target, choose
from tumorseg_export.targets.validate_parity import read_certificate, refuse_breach, require_validators
from tumorseg_runtime.backends import onnxruntime as onnxruntime_backend
from tumorseg_runtime.backends import open_session
from tumorseg_runtime.bundle.bundle import INDEX, Bundle, sha256_of
from tumorseg_runtime.core.errors import BackendError, BundleError, InputError, ParityError
from tumorseg_runtime.core.session import InProcess
from tumorseg_runtime.inference.segmenter import Segmenter
from tumorseg_runtime.parity.reference import load_golden
from tumorseg_train.networks.models import count_parameters
from tumorseg_train.networks.run import CHECKPOINT, Run


@pytest.fixture
def copied_bundle(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle.root, tmp_path / "bundle"))


@pytest.fixture
def after_golden(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[torch.nn.Module], None]], None]:
    """Function that lets the network be changed once its golden logits are computed."""
    make_golden = export.make_golden

    def install(change: Callable[[torch.nn.Module], None]) -> None:
        def changed(model: torch.nn.Module, *rest: object) -> object:
            golden = make_golden(model, *rest)  # type: ignore[arg-type]
            with torch.no_grad():
                change(model)
            return golden

        monkeypatch.setattr(export, "make_golden", changed)

    return install


@pytest.mark.slow
def test_bundle_holds_what_a_device_needs(tiny_bundle: Bundle, tiny_run: Run) -> None:
    golden = ["01-brain-tumour", "02-brain-none", "03-breast-tumour", "04-breast-none"]
    assert sorted(tiny_bundle.files) == sorted(
        [
            "MODEL_CARD.md", "certificates/model.fp16.onnx.json", "certificates/model.onnx.json",
            "model.fp16.onnx", "model.onnx", "sbom.cdx.json",
            *(f"golden/{name}.{kind}" for name in golden for kind in ("npz", "png")),
        ]
    )  # fmt: skip
    assert Bundle.open(tiny_bundle.root) == tiny_bundle
    assert tiny_bundle.golden == tuple(golden)
    assert tiny_bundle.contract == tiny_run.contract
    assert tiny_bundle.name == f"unet-resnet18-64x64-{tiny_run.checkpoint_sha256[:8]}"
    assert tiny_bundle.model["parameters"] == count_parameters(tiny_run.model())
    assert 0.6 < tiny_bundle.model["gflop"] < 0.7
    assert tiny_bundle.provenance["checkpoint_sha256"] == tiny_run.checkpoint_sha256
    assert tiny_bundle.provenance["split_sha256"] == tiny_run.data["split_sha256"]
    assert tiny_bundle.provenance["versions"]["torch"] == torch.__version__.split("+")[0]
    sizes = {name: tiny_bundle.files[name].bytes for name in ("model.onnx", "model.fp16.onnx")}
    assert sizes["model.fp16.onnx"] < 0.51 * sizes["model.onnx"]


def test_no_path_of_this_machine_is_in_the_index(tiny_bundle: Bundle, tiny_run: Run, tiny_data: Path) -> None:
    for file in (INDEX, "MODEL_CARD.md"):
        text = (tiny_bundle.root / file).read_text()
        for path in (tiny_data, tiny_run.root, tiny_bundle.root, Path.cwd()):
            assert str(path) not in text


def test_folder_of_the_encoder_weights_stays_behind(tiny_run: Run) -> None:
    recipe = {"name": "full", "encoder_weights": "/home/someone/resnet18.safetensors"}
    initial = {"path": "/home/someone/unet.safetensors", "sha256": "0" * 64}
    facts = training_facts(
        dataclasses.replace(tiny_run, training={"recipe": recipe, "initial_weights": initial})
    )
    assert facts["training"]["initial_weights"] == {"path": "unet.safetensors", "sha256": "0" * 64}
    assert facts["training"]["recipe"] == {"name": "full", "encoder_weights": "resnet18.safetensors"}
    assert recipe["encoder_weights"].startswith("/home")


def test_verdicts_say_what_was_run_here(tiny_bundle: Bundle) -> None:
    for artefact in tiny_bundle.artefacts:
        verdicts = {verdict.device: verdict for verdict in artefact.parity}
        assert list(verdicts) == ["cpu", "cuda", "tensorrt"]
        assert {verdict.backend for verdict in artefact.parity} == {"onnxruntime"}
        for device, verdict in verdicts.items():
            reason = onnxruntime_backend.why_unavailable(device)
            expected = ("unverified", reason) if reason else ("passed", f"certificates/{artefact.file}.json")
            assert (verdict.status, verdict.detail) == expected
    assert onnxruntime_backend.why_unavailable("cpu") is None


def test_certificate_holds_the_figures_of_every_call(tiny_bundle: Bundle) -> None:
    for artefact in tiny_bundle.artefacts:
        certificate = read_certificate(tiny_bundle, artefact)
        assert certificate["sha256"] == tiny_bundle.files[artefact.file].sha256
        reports = [report for report in certificate["reports"] if report["device"] == "cpu"]
        assert [report["batch_size"] for report in reports] == [4, 4]
        golden, others = ({image["image"] for image in report["images"]} for report in reports)
        calls = {image["call"] for image in reports[0]["images"]}
        assert {"one file", "a list of 2 in batches of 2", "a stream of 2 in batches of 4"} <= calls
        assert golden == set(tiny_bundle.golden)
        assert len(others - golden) == CALIBRATION  # compared on images that are not in the bundle
        for report in reports:
            assert report["passed"] is True
            assert report["precision"] == artefact.precision
            assert all(image["tensor_differs"] == 0 for image in report["images"])
            assert all(image["max_error"] > 0 for image in report["images"])


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_bundle_serves(tiny_bundle: Bundle, tiny_data: Path, precision: str) -> None:
    segmenter = Segmenter.open(tiny_bundle.root, precision=precision, self_test=True)
    masks = [segmenter.predict(tiny_data / f"brain/images/{n}.png").mask for n in range(8)]
    assert any(mask.any() for mask in masks)
    assert masks[1].shape == (80, 80)


@pytest.mark.fault
@pytest.mark.parametrize(
    "name", ["model.onnx", "model.fp16.onnx", "golden/01-brain-tumour.npz", "MODEL_CARD.md"]
)
def test_one_changed_byte_is_refused(copied_bundle: Path, name: str) -> None:
    data = bytearray((copied_bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copied_bundle / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name} has the right size but other content"):
        Bundle.open(copied_bundle)


@pytest.mark.slow
def test_artefact_with_other_weights_is_refused_and_named(
    tiny_run: Run, tmp_path: Path, after_golden: Callable[[Callable[[torch.nn.Module], None]], None]
) -> None:
    after_golden(lambda model: model.segmentation_head[0].bias.add_(0.3))
    with pytest.raises(ParityError) as caught:
        export_run(tiny_run, tmp_path / "bundle", targets=["onnx"])
    message = str(caught.value)
    assert "no bundle was written" in message
    assert "model.onnx: 01-brain-tumour (one file): logit error 0.3 is" in message
    assert os.listdir(tmp_path) == []


def test_breach_in_a_batch_alone_is_refused(tiny_bundle: Bundle) -> None:
    class Frozen(InProcess):
        """Right for single images; in a batch every image gets the answer to the first."""

        def __init__(self) -> None:
            self._session = open_session(tiny_bundle)
            self.input, self.info = self._session.input, self._session.info

        def infer(self, batch: np.ndarray) -> np.ndarray:
            return np.repeat(self._session.infer(batch)[:1], len(batch), axis=0)

    refuse_breach(golden_report(tiny_bundle, Frozen(), "model.onnx"))
    with pytest.raises(
        ParityError, match=r"model\.onnx: 02-brain-none \(a list of \d in batches of 3\): logit error"
    ):
        refuse_breach(golden_report(tiny_bundle, Frozen(), "model.onnx", batch_size=3))


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_interrupted_export_keeps_the_old_bundle(
    tiny_run: Run, copied_bundle: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    before = sha256_of(copied_bundle / INDEX)

    def stop(context: object, folder: Path) -> None:
        (folder / "model.onnx").write_bytes(b"half")
        raise error

    monkeypatch.setattr(onnx_export, "make", stop)
    with pytest.raises(error):
        export_run(tiny_run, copied_bundle)
    assert Bundle.open(copied_bundle).digest() == before
    assert os.listdir(copied_bundle.parent) == ["bundle"]


@pytest.mark.slow
def test_new_bundle_replaces_the_old_one(tiny_run: Run, copied_bundle: Path) -> None:
    said: list[str] = []
    shares: list[float] = []
    bundle = export_run(
        tiny_run, copied_bundle, targets=["onnx"], golden=3, log=said.append, tell=shares.append
    )
    assert shares == sorted(shares)
    assert (len(shares) > 10, shares[-1]) == (True, pytest.approx(1.0))
    assert bundle.root == copied_bundle
    assert [artefact.file for artefact in bundle.artefacts] == ["model.onnx"]
    assert len(load_golden(bundle)) == 3
    assert not (copied_bundle / "model.fp16.onnx").exists()
    assert os.listdir(copied_bundle.parent) == ["bundle"]
    assert [line.partition(" (")[0] for line in said] == [
        "loaded unet with resnet18, ran 11 images in PyTorch", "3 golden images", "made onnx",
        "PyTorch on the same images with a grey level of noise", "proved model.onnx", "sealed",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.fault
def test_disk_that_takes_no_more_is_said_as_such(tiny_run: Run, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**13, hard))  # a golden tensor has 28 kB
    try:
        with pytest.raises(
            InputError, match=r"cannot be written \(File too large\): check the folder, its rights"
        ):
            export_run(tiny_run, tmp_path / "bundle", targets=["onnx"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []


@pytest.mark.fault
def test_truncated_checkpoint_is_refused(tiny_run: Run, tmp_path: Path) -> None:
    root = Path(shutil.copytree(tiny_run.root, tmp_path / "run"))
    checkpoint = root / CHECKPOINT
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(BundleError, match="SHA-256 differs"):
        export_run(Run.open(root), tmp_path / "bundle")
    index = json.loads((root / "run.json").read_text())  # and with a hash that fits the damage
    index["checkpoint_sha256"] = sha256_of(checkpoint)
    (root / "run.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="cannot be read as weights"):
        export_run(Run.open(root), tmp_path / "bundle")
    assert os.listdir(tmp_path) == ["run"]


def test_wrong_architecture_is_refused(tiny_run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"do not fit: missing .*unexpected"):
        export_run(dataclasses.replace(tiny_run, architecture="deeplabv3"), tmp_path / "bundle")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("names", [["onnx", "coreml"], []])
def test_unknown_target_is_refused_with_those_that_are_known(
    tiny_run: Run, tmp_path: Path, names: list[str]
) -> None:
    with pytest.raises(InputError, match=f"expected one or more of {', '.join(TARGETS)}"):
        export_run(tiny_run, tmp_path / "bundle", targets=names)
    assert os.listdir(tmp_path) == []


def test_targets_come_in_the_registrys_order_and_once() -> None:
    assert list(choose(["onnx-fp16", "onnx", "onnx"])) == ["onnx", "onnx-fp16"]


def test_without_a_validator_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime_backend, "why_unavailable", lambda device: "onnxruntime is not installed")
    with pytest.raises(
        BackendError, match=r"onnx must be proven by onnxruntime on cpu: onnxruntime is not installed"
    ):
        require_validators("onnx", Target("unused", (("onnxruntime", "cpu"),)))


def test_card_says_what_the_network_is(tiny_bundle: Bundle) -> None:
    card = (tiny_bundle.root / "MODEL_CARD.md").read_text()
    assert "not a medical device" in card
    assert "not phantoms" in card
    assert "7 for train" in card
    assert "`model.fp16.onnx`" in card
    assert "onnxruntime cpu: passed" in card
    assert "64 x 64 pixels" in card


def test_card_warns_of_phantoms_and_keeps_to_figures(tiny_bundle: Bundle, copied_bundle: Path) -> None:
    from tumorseg_export.bundle.model_card import write_card

    metrics = {"test": {"mean_dice": 0.88213, "scores": [{"image": "a.png"}]}}
    training = {**tiny_bundle.training, "phantoms": True, "metrics": metrics}
    write_card(dataclasses.replace(tiny_bundle, root=copied_bundle, training=training))
    card = (copied_bundle / "MODEL_CARD.md").read_text()
    assert "- The training images are phantoms, drawn by a program." in card
    assert "- test.mean_dice: 0.8821\n- test.scores: 1 entries, in `bundle.json`\n" in card
    assert "Notes of the maker" not in card
    write_card(dataclasses.replace(tiny_bundle, root=copied_bundle), "\n## Notes of the maker\nCC0.\n\n")
    assert (
        (copied_bundle / "MODEL_CARD.md")
        .read_text()
        .endswith("these images.\n\n## Notes of the maker\nCC0.\n")
    )
