"""What is evaluated: the network of a run under PyTorch, or a bundle's artefact under a backend."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.bundle.bundle import INDEX as BUNDLE_INDEX
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BundleError, InputError
from tumorseg_runtime.core.records import Fields, Format
from tumorseg_train.data.split import SPLIT, Manifest
from tumorseg_train.evaluation.predictions import Infer

if TYPE_CHECKING:
    from tumorseg_train.networks.run import Run

PYTORCH = "pytorch"
RUN_INDEX = "run.json"  # read here, since the module `run` needs torch, and a bundle does not
_RUN = Format("run that names the folder of its images", "give it with --data")


@dataclasses.dataclass(frozen=True, eq=False)
class Predictor:
    """A network that answers. run: None for a bundle. split_sha256: of the split it was trained on.

    facts: kind, name, path, architecture, encoder, parameters, gflop (of one image at the contract's size),
        checkpoint_sha256, backend, device, precision, versions.
    """

    path: Path
    contract: Contract
    infer: Infer
    facts: dict[str, Any]
    split_sha256: str
    run: Run | None = None


def open_predictor(
    path: Path,
    *,
    backend: str | None = None,
    device: str | None = None,
    precision: str | None = None,
    size: int | None = None,
) -> Predictor:
    """Open the run or bundle at `path`.

    backend: None for PyTorch where it is a run, for onnxruntime where it is a bundle.
    size: height and width in pixels at which a run's network is run, None for its contract's.
    Raises InputError where the options do not fit, BundleError and BackendError as the run or bundle does.
    """
    if (path / BUNDLE_INDEX).is_file():
        if size is not None:
            raise InputError(
                f"{path}: is a bundle, whose size is fixed, expected no --size: evaluate its run"
            )
        return _open_bundle(path, backend or "onnxruntime", device, precision)
    if backend not in (None, PYTORCH) or device is not None or precision not in (None, "fp32"):
        asked = ", ".join(v for v in (backend, device, precision) if v)
        raise InputError(
            f"{path}: is no bundle, got {asked}, expected none of these for a run, which PyTorch runs: "
            "export it, and evaluate the bundle"
        )
    return _open_run(path, size)


def _open_run(path: Path, size: int | None) -> Predictor:
    import torch

    from tumorseg_train.evaluation.complexity import count_costs
    from tumorseg_train.evaluation.predictions import torch_infer
    from tumorseg_train.networks.run import Run

    run = Run.open(path)
    contract = run.contract if size is None else dataclasses.replace(run.contract, height=size, width=size)
    parameters, gflop = count_costs(dataclasses.replace(run, contract=contract))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = run.model().to(device)
    facts = {
        "kind": "run",
        "name": f"{run.architecture} {run.encoder}",
        "path": str(path),
        "architecture": run.architecture,
        "encoder": run.encoder,
        "parameters": parameters,
        "gflop": gflop,
        "checkpoint_sha256": run.checkpoint_sha256,
        "backend": PYTORCH,
        "device": torch.cuda.get_device_name(0) if device == "cuda" else "cpu",
        "precision": "fp32",
        "versions": {"torch": torch.__version__.partition("+")[0]},
    }
    return Predictor(path, contract, torch_infer(model, contract), facts, run.data["split_sha256"], run)


def _open_bundle(path: Path, backend: str, device: str | None, precision: str | None) -> Predictor:
    from tumorseg_runtime.bundle.bundle import Bundle
    from tumorseg_runtime.images.frame import Frame
    from tumorseg_runtime.inference.segmenter import Segmenter

    bundle = Bundle.open(path)
    segmenter = Segmenter.open(
        bundle, backend=backend, device=device, precision=precision, batch_size=1, logits=True
    )

    if segmenter.gives_masks:
        raise InputError(
            f"backend is '{backend}', which gives masks alone, expected one that gives logits: choose another"
        )

    def infer(image: npt.NDArray[np.uint8], name: str) -> npt.NDArray[np.float32]:
        return np.asarray(segmenter.infer([segmenter.prepare(Frame(name, image))])[0])

    info, facts = segmenter.info, bundle.provenance
    return Predictor(
        path,
        bundle.contract,
        infer,
        {
            "kind": "bundle",
            "name": bundle.name,
            "path": str(path),
            "architecture": bundle.model.get("architecture"),
            "encoder": bundle.model.get("encoder"),
            "parameters": bundle.model.get("parameters"),
            "gflop": bundle.model.get("gflop"),
            "checkpoint_sha256": facts.get("checkpoint_sha256"),
            "backend": info.backend,
            "device": info.device,
            "precision": info.precision,
            "versions": dict(info.versions),
        },
        str(facts.get("split_sha256") or ""),
    )


def find_manifest(predictor: Predictor, split: Path | None, data: Path | None) -> tuple[Manifest, list[str]]:
    """The split to evaluate on, and what a reader must know about it, a line each.

    split: a split.json, or a folder that holds one, such as a run; None for the run's own.
    data: folder of the images; None for the one the run names.
    Raises InputError where one of them is needed, BundleError for a damaged split.
    """
    run = predictor.run
    if split is None:
        if run is None:
            raise InputError(
                f"{predictor.path}: is a bundle, which holds no split, expected --split with the run that it "
                "was made from, or with a split.json"
            )
        split = run.root
    path = split / SPLIT if split.is_dir() else split
    root = data or _data_of(run, path)
    manifest = Manifest.read(path, root)
    if not root.is_dir():
        raise InputError(f"{root}: is not a folder, expected the images of the split: give it with --data")
    if manifest.digest() == predictor.split_sha256:
        return manifest, []
    if run is None:
        return manifest, ["It was not trained on this split: whether it has seen these images is not known."]
    if path.parent == run.root:
        raise BundleError(f"{path}: is not the split that the run names: train again")
    return manifest, ["It was not trained on this split."]


def _data_of(run: Run | None, split: Path) -> Path:
    """The images' folder: of the run beside the split, else of the evaluated run, else that of the split."""
    if run is not None and run.root == split.parent:
        return Path(run.data["root"])
    beside = split.parent / RUN_INDEX
    if beside.is_file():
        return Path(_RUN.read(beside, Fields(data=Fields(root=str)))["data"]["root"])
    return Path(run.data["root"]) if run is not None else split.parent


def seen_in_training(predictor: Predictor, manifest: Manifest, part: str) -> list[str]:
    """Images of the part whose very bytes were in the training part of the run; none for a bundle."""
    if predictor.run is None:
        return []
    own = predictor.run.manifest()
    trained = {item.files[item.image] for item in own.part("train")}
    return [item.image for item in manifest.part(part) if item.files[item.image] in trained]
