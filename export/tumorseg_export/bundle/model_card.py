"""`MODEL_CARD.md`: what a bundle is, for the person who opens it first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tumorseg_export.references.mask_shares import SHEET
from tumorseg_export.targets import onnx_fp16 as fp16
from tumorseg_export.targets import onnx_int8 as int8
from tumorseg_export.targets.validate_parity import worst_figures
from tumorseg_runtime.bundle.bundle import INDEX, Artefact, Bundle
from tumorseg_runtime.core.files import write_text
from tumorseg_runtime.processing.input_guard import FILE as GUARD

FILE = "MODEL_CARD.md"


def write_card(draft: Bundle, notes: str = "") -> None:
    """Write the card of a bundle whose artefacts are proven and in its folder.

    notes: Markdown of the person who exports (sources, licences, results), which ends the card as it is.
    """
    card = "\n".join(_lines(draft)) + "\n"
    write_text(draft.root / FILE, f"{card}\n{notes.strip()}\n" if notes.strip() else card, durable=False)


def _lines(bundle: Bundle) -> Iterator[str]:
    model, contract = bundle.model, bundle.contract
    yield f"# {bundle.name}"
    yield ""
    yield (
        f"Segments {', '.join(contract.classes)} in images: {model['architecture']} with encoder "
        f"{model['encoder']}, {model['parameters'] / 1e6:.1f} million parameters, "
        f"{model['gflop']:.1f} GFLOP per image. Exported by tumorseg {bundle.provenance['tumorseg']}."
    )
    yield ""
    yield "## Intended use and limits"
    yield "For research. This is not a medical device and must not be used to diagnose or treat anyone."
    yield from _limits(bundle)
    yield ""
    yield "## Trained on"
    yield from _trained_on(bundle)
    yield ""
    yield "## Metrics"
    yield from _metrics(bundle)
    yield ""
    yield "## Input and output"
    yield from _interface(bundle)
    yield ""
    yield "## Artefacts"
    yield f"Compared with PyTorch on {len(bundle.golden)} golden images, alone and in batches."
    yield ""
    yield "| file | format | precision | MB | largest logit error | pixels flipped | verdict |"
    yield "|---|---|---|---|---|---|---|"
    for artefact in bundle.artefacts:
        yield _row(bundle, artefact)
    yield ""
    if "fp16" in model:
        yield from fp16.describe(model["fp16"])
        yield ""
    if "int8" in model:
        yield from int8.describe(model["int8"])
        yield ""
    yield (
        f"The golden images ({bundle.provenance['golden_images']}) are in this bundle, in `golden/`: a "
        "device replays them to test itself. Whoever gets the bundle gets these images."
    )


def _limits(bundle: Bundle) -> Iterator[str]:
    yield ""
    yield from (f"- {line}" for line in limits(bundle))


def limits(bundle: Bundle) -> Iterator[str]:
    """What the network and the evidence for it do not show, a sentence or two each."""
    if "warning" in bundle.model:
        yield f"{bundle.model['warning']}: `{SHEET}` shows the golden images with their masks."
    if bundle.training["phantoms"]:
        yield (
            "The training images are phantoms, drawn by a program. The metrics show that the tools "
            "work, and nothing about patients."
        )
    if bundle.provenance["golden_images"].startswith("phantoms"):
        yield (
            "The golden images are phantoms: that the artefacts decide as PyTorch does is shown on "
            "drawn images alone."
        )
    if (bundle.root / GUARD).is_file():
        yield (
            "Images unlike its training images are flagged by the input guard, as far as simple statistics "
            "tell; what looks alike (another device, another disease) it may get wrong without a sign."
        )
    else:
        yield "What it was not trained on (other organs, devices, ages) it may get wrong without a sign."
    yield "A mask comes without a measure of its certainty."
    yield "An image with another aspect ratio than the input's is stretched to it."


def _metrics(bundle: Bundle) -> Iterator[str]:
    if not bundle.training["metrics"]:
        yield "None are known: measure it on images of yours before you believe a mask."
        return
    yield "As measured when the network was trained, in PyTorch; how its artefacts compare stands below."
    yield ""
    yield from (f"- {name}: {value}" for name, value in _flat(bundle.training["metrics"]))


def _trained_on(bundle: Bundle) -> Iterator[str]:
    training = bundle.training
    if not training["data"]:
        yield f"- {training['training']['note']}"
        yield f"- checkpoint SHA-256 `{bundle.provenance['checkpoint_sha256']}`"
        return
    counts = ", ".join(f"{count} for {part}" for part, count in training["data"]["images"].items())
    kind = "phantoms (drawn images)" if training["phantoms"] else "images of a dataset, not phantoms"
    yield f"- {kind}; images: {counts}"
    yield f"- split SHA-256 `{bundle.provenance['split_sha256']}`"
    yield f"- checkpoint SHA-256 `{bundle.provenance['checkpoint_sha256']}`"
    yield from (f"- {name}: {value}" for name, value in _flat(training["training"]))


def _interface(bundle: Bundle) -> Iterator[str]:
    contract = bundle.contract
    channels = "gray" if contract.channels == 1 else "RGB, or gray repeated"
    size = f"{contract.height} x {contract.width} pixels (H x W)"
    yield f"- input: {contract.channels} channels ({channels}), {size}"
    yield f"- resize: {contract.resize}"
    yield f"- then value / 255, minus mean {list(contract.mean)}, divided by std {list(contract.std)}"
    yield f"- output: logits, one channel per class: {', '.join(contract.classes)}"
    yield f"- decision: {contract.decision}"
    if softmax := bundle.model.get("softmax"):
        yield (
            f"- the checkpoint has {softmax['channels']} channels under softmax; channel "
            f"{softmax['background']}, the background's, is subtracted from the others"
        )


def _row(bundle: Bundle, artefact: Artefact) -> str:
    figures = worst_figures(bundle, artefact)
    error, flipped = ("-", "-") if figures is None else (f"{figures[0]:.2g}", f"{figures[1]} of {figures[2]}")
    size = sum((bundle.root / name).stat().st_size for name in artefact.files) / 1e6
    verdicts = "; ".join(
        f"{verdict.backend} {verdict.device}: {verdict.status}"
        + (f" ({verdict.detail})" if verdict.status == "unverified" else "")
        for verdict in artefact.parity
    )
    return (
        f"| `{artefact.file}` | {artefact.format} | {artefact.precision} | {size:.1f} | {error} "
        f"| {flipped} | {verdicts} |"
    )


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested facts as (dotted name, value); lists are only counted."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{name}", f"{len(value)} entries, in `{INDEX}`"
        else:
            yield f"{prefix}{name}", f"{value:.4g}" if isinstance(value, float) else value
