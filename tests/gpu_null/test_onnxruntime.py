"""ONNX Runtime's real CUDA provider runs what is exported: every node placed on CUDA, no CPU behind it."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch

from gpu_null import programs
from gpu_null.floor import Floor
from tumorseg_export.onnx.export import to_onnx
from tumorseg_export.onnx.passes.deploy import to_deploy
from tumorseg_export.precision.fp16_graph import Graph, to_mixed
from tumorseg_runtime.core.contract import Contract
from tumorseg_train.networks.models import ARCHITECTURES, build_model

ENCODERS = {"dpt": "tu-vit_tiny_patch16_224"}  # takes no resnet18
FROM_HOST = {"dpt"}  # ONNX Runtime brings a table up to join unequal parts: no CUDA graph may hold that
HEIGHTS = {"pan": 128}  # its pools need more than 64 pixels


def write_forms(architecture: str, folder: Path) -> list[Path]:
    """FP32, FP16 and both deploy forms of one network, from one export."""
    contract = Contract(height=HEIGHTS.get(architecture, 64), width=128)
    encoder = ENCODERS.get(architecture, "resnet18")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_model(architecture, encoder, channels=3, classes=1).eval()
    plain = to_onnx(network, contract)
    forms = {
        "fp32": plain,
        "deploy": to_deploy(plain, contract, gray=False).model,
        "deploy-gray": to_deploy(plain, contract, gray=True).model,
        "fp16": to_mixed(Graph(plain), frozenset()),
    }
    paths = []
    for form, model in forms.items():
        paths.append(folder / f"{architecture}.{form}.onnx")
        onnx.save(model, str(paths[-1]))
    return paths


@pytest.mark.slow
@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_every_form_of_every_architecture_runs_on_cuda_alone(
    toolkit: Floor, architecture: str, tmp_path: Path
) -> None:
    """Placed there as a whole, without a wait, a pageable copy or memory taken, and as a CUDA graph."""
    answer = toolkit.call(programs.serve_graphs, write_forms(architecture, tmp_path))
    assert len(answer.value) == 4
    for name, counts in answer.value.items():
        assert isinstance(counts, dict), f"{name}: {counts}"
        assert counts["launches"] > 0
        assert (counts["synchronisations"], counts["pageable_copies"], counts["allocations"]) == (0, 0, 0)
        assert counts["graph_launches"] == (0 if architecture in FROM_HOST else 3)
        assert (counts["uploads"] > 0) == (architecture in FROM_HOST)
