import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tumorseg_export.checkpoint.context import ExportContext
from tumorseg_export.onnx import export as onnx_export
from tumorseg_export.onnx.export import check_interface, strip, to_onnx
from tumorseg_export.targets import onnx_fp16 as fp16
from tumorseg_runtime.backends import open_session
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import CheckFailedError
from tumorseg_train.networks.run import Run

FILES = ["model.onnx", "model.fp16.onnx"]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_batches_equal_single_images_bit_for_bit(tiny_bundle: Bundle, precision: str) -> None:
    session = open_session(tiny_bundle, precision=precision)
    contract = tiny_bundle.contract
    random = np.random.default_rng(0)
    images = random.standard_normal((7, contract.channels, contract.height, contract.width), np.float32)
    single = np.concatenate([session.infer(image[None]) for image in images])
    assert len({logits.tobytes() for logits in single}) == 7
    for size in (2, 3, 7):
        batch = session.infer(images[:size])
        assert np.array_equal(batch.view(np.uint32), single[:size].view(np.uint32)), f"batch of {size}"


@pytest.mark.parametrize("file", FILES)
def test_graph_declares_the_contract_and_is_valid(tiny_bundle: Bundle, file: str) -> None:
    model = onnx.load(tiny_bundle.root / file)
    onnx.checker.check_model(model, full_check=True)
    check_interface(model, tiny_bundle.contract, file)
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 18}
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}


@pytest.mark.parametrize("file", FILES)
def test_file_says_what_it_is_and_nothing_of_the_machine(
    tiny_bundle: Bundle, tiny_run: Run, file: str
) -> None:
    model = onnx.load(tiny_bundle.root / file)
    properties = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")  # among millions of weights any three letters occur
    text = model.SerializeToString()
    for trace in (b"site-packages", b"/root", b"/home", b"stack_trace", b".py", b"File ", b"+cu", b"+cpu"):
        assert trace not in text
    assert properties.keys() == {"tumorseg.contract", "tumorseg.origin"}
    assert properties["tumorseg.contract"] == json.loads(json.dumps(tiny_run.contract.to_dict()))
    origin = properties["tumorseg.origin"]
    assert origin["checkpoint_sha256"] == tiny_run.checkpoint_sha256
    assert origin["split_sha256"] == tiny_run.data["split_sha256"]
    assert origin["precision"] == ("fp16" if "fp16" in file else "fp32")


@pytest.mark.slow
@pytest.mark.process
def test_another_process_gives_the_same_bytes(tiny_bundle: Bundle, tiny_run: Run, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from tumorseg_export.onnx import export; from tumorseg_export.targets import onnx_fp16\n"
        "from tumorseg_export.checkpoint.provenance import origin_of\n"
        "from tumorseg_export.checkpoint.context import ExportContext\n"
        "from tumorseg_train.networks.run import Run\n"
        "from tumorseg_runtime.bundle.bundle import Bundle\n"
        "from tumorseg_runtime.parity.reference import load_golden\n"
        "run, bundle = Run.open(sys.argv[1]), Bundle.open(sys.argv[2])\n"
        "source = ExportContext(run.model(), run.contract, origin_of(run), tuple(load_golden(bundle)))\n"
        "onnx_fp16.make(source, Path.cwd()); export.make(source, Path.cwd())\n"  # the other order, too
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    command = [sys.executable, "-c", code, str(tiny_run.root), str(tiny_bundle.root)]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment, timeout=300)
    for file in FILES:
        again = hashlib.sha256((tmp_path / file).read_bytes()).hexdigest()
        assert again == tiny_bundle.files[file].sha256, file


@pytest.mark.slow
def test_same_network_gives_the_same_bytes_and_other_weights_others(
    small_context: ExportContext, tmp_path: Path
) -> None:
    for module in (onnx_export, fp16):
        files = []
        for name in ("first", "second"):
            folder = tmp_path / f"{module.__name__}-{name}"
            folder.mkdir()
            files.append((folder / module.make(small_context, folder).artefact.file).read_bytes())
        assert files[0] == files[1]
    with torch.no_grad():
        small_context.model.head.bias.add_(1)
    onnx_export.make(small_context, tmp_path)
    assert (tmp_path / "model.onnx").read_bytes() != files[0]


@pytest.mark.slow
def test_strip_reaches_subgraphs(small_context: ExportContext) -> None:
    inner = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"], doc_string="/root/secret")], "g", [], []
    )
    model = to_onnx(small_context.model, small_context.contract)
    assert b"stack_trace" in model.SerializeToString()  # else this project need not strip
    model.graph.node.append(onnx.helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner))
    model.doc_string = "/root/secret"
    strip(model)
    data = model.SerializeToString()
    assert b"secret" not in data
    assert b"stack_trace" not in data
    assert model.graph.node[-1].attribute[0].g.node[0].op_type == "Relu"


@pytest.mark.slow
def test_network_that_breaks_the_contract_is_refused(small_context: ExportContext, tmp_path: Path) -> None:
    two = Contract(height=64, width=64, classes=("core", "oedema"))
    model = to_onnx(small_context.model, small_context.contract)
    with pytest.raises(
        CheckFailedError, match=r"model.onnx: declares .*'batch', 1, 64, 64.*expected .*'batch', 2,"
    ):
        check_interface(model, two, "model.onnx")


@pytest.mark.slow
def test_frozen_batch_is_refused(small_context: ExportContext) -> None:
    model = to_onnx(small_context.model, small_context.contract)
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2
    with pytest.raises(CheckFailedError, match=r"'logits': \(1, \[2, 1, 64, 64\]\)"):
        check_interface(model, small_context.contract, "model.onnx")


def test_training_mode_is_refused(small_context: ExportContext) -> None:
    with pytest.raises(ValueError, match="training mode"):
        to_onnx(small_context.model.train(), small_context.contract)


def test_export_is_quiet(
    small_context: ExportContext, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    onnx_export.make(small_context, tmp_path)
    assert capfd.readouterr() == ("", "")
