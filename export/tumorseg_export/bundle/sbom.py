"""`sbom.cdx.json`: what made a bundle, what came out, on which data and with what figures, as CycloneDX 1.7.

The document holds no time, no serial number and no path, so that the same bundle gives the same bytes.
Written by hand: the form is small, and a library for it would bring more packages than it describes; a test
holds it against the official schema.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, version
from typing import Any
from urllib.parse import quote

from tumorseg_export.bundle.model_card import limits
from tumorseg_runtime.bundle.bundle import Artefact, Bundle
from tumorseg_runtime.core.files import write_text
from tumorseg_runtime.core.records import to_json

FILE = "sbom.cdx.json"
SPEC = "1.7"
DATASET = "data:training"
PYTHON = "python"
# Licences whose SPDX identifier some packages put into the old field, where anything may stand.
SPDX = frozenset(
    ("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MPL-2.0", "PSF-2.0", "Zlib")
)
LONGEST_NAME = 60  # some packages put the whole text of their licence into that field


def write_sbom(draft: Bundle) -> None:
    """Write the SBOM of a bundle whose artefacts are in its folder."""
    write_text(draft.root / FILE, to_json(document(draft)), durable=False)


def document(bundle: Bundle) -> dict[str, Any]:
    """The SBOM as plain values."""
    packages = [_package(name, release) for name, release in sorted(versions_in(bundle).items())]
    datasets = [_dataset(bundle)] if bundle.training["data"] else []
    model = {
        "type": "machine-learning-model",
        "bom-ref": f"model:{bundle.name}",
        "name": bundle.name,
        "version": bundle.provenance["checkpoint_sha256"],
        "components": [
            _file(bundle, artefact, name) for artefact in bundle.artefacts for name in artefact.files
        ],
        "modelCard": _model_card(bundle),
    }
    references = [package["bom-ref"] for package in packages]
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "version": 1,
        "metadata": {"component": model},
        "components": [*packages, *datasets],
        "dependencies": [
            {"ref": model["bom-ref"], "dependsOn": [*references, *(one["bom-ref"] for one in datasets)]},
            *({"ref": reference} for reference in references),
        ],
    }


def _model_card(bundle: Bundle) -> dict[str, Any]:
    """The machine-readable side of MODEL_CARD.md."""
    contract, model = bundle.contract, bundle.model
    size = f"{contract.height}, {contract.width}"
    known = bool(bundle.training["data"])
    return {
        "modelParameters": {
            **({"approach": {"type": "supervised"}} if known else {}),
            "task": f"segmentation of {', '.join(contract.classes)}",
            "modelArchitecture": f"{model['architecture']} {model['encoder']}",
            **({"datasets": [{"ref": DATASET}]} if known else {}),
            "inputs": [{"format": f"float32 (N, {contract.channels}, {size})"}],
            "outputs": [{"format": f"float32 logits (N, {len(contract.classes)}, {size})"}],
        },
        "quantitativeAnalysis": {"performanceMetrics": list(_metrics(bundle.training["metrics"]))},
        "considerations": {
            "useCases": ["research; not a medical device"],
            "technicalLimitations": list(limits(bundle)),
        },
    }


def _metrics(metrics: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Figures of the test part that are single numbers, with their intervals where there are some."""
    test = metrics.get("test", {})
    for name, value in test.items():
        if isinstance(value, int | float):
            low, high = test.get("intervals", {}).get(name, (None, None))
            interval = {} if low is None else {"lowerBound": f"{low:.4g}", "upperBound": f"{high:.4g}"}
            yield {
                "type": name,
                "value": f"{value:.4g}",
                "slice": "test part",
                **({"confidenceInterval": interval} if interval else {}),
            }


def _dataset(bundle: Bundle) -> dict[str, Any]:
    """The images that the network was trained on: how many, under which split. Their licence is not known
    here: the notes of `export --notes` state it in MODEL_CARD.md."""
    images, phantoms = bundle.training["data"]["images"], bundle.training["phantoms"]
    facts = {f"tumorseg:images:{part}": str(count) for part, count in images.items()}
    facts["tumorseg:split_sha256"] = bundle.provenance["split_sha256"]
    facts["tumorseg:licence"] = "of this project" if phantoms else "not known here: see MODEL_CARD.md"
    name = "phantoms, drawn by tumorseg" if phantoms else "images with masks"
    return {
        "type": "data",
        "bom-ref": DATASET,
        "name": name,
        **({"licenses": [{"license": {"id": "Apache-2.0"}}]} if phantoms else {}),
        "data": [{"type": "dataset", "name": name, "sensitiveData": [] if phantoms else ["medical images"]}],
        "properties": [{"name": key, "value": value} for key, value in facts.items()],
    }


def versions_in(bundle: Bundle) -> dict[str, str]:
    """Versions of what made the bundle, by the package's name as registries write it."""
    found = {_normal(name): said for name, said in bundle.provenance["versions"].items()}
    for artefact in bundle.artefacts:
        found.update({_normal(name): _released(name, said) for name, said in artefact.tools.items()})
    return found


def _released(name: str, said: str) -> str:
    """The version that a registry has the package under: a tool may name its build, as OpenVINO does."""
    try:
        return version(name)
    except PackageNotFoundError:  # a tool that did not come as a package, such as JetPack's
        return said


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _package(name: str, release: str) -> dict[str, Any]:
    if name == PYTHON:
        reference = f"pkg:generic/{PYTHON}@{quote(release, safe='')}"
        return {"type": "platform", "bom-ref": reference, "name": name, "version": release, "purl": reference}
    reference = f"pkg:pypi/{name}@{quote(release, safe='')}"
    licences = licences_of(name)
    return {
        "type": "library",
        "bom-ref": reference,
        "name": name,
        "version": release,
        "purl": reference,
        **({"licenses": licences} if licences else {}),
    }


def licences_of(name: str) -> list[dict[str, Any]]:
    """What the installed package's metadata say, in CycloneDX's form; empty where they say nothing usable."""
    try:
        facts = metadata(name)
    except PackageNotFoundError:  # a tool that did not come as a package, such as JetPack's
        return []
    for expression in facts.get_all("License-Expression") or []:
        return [{"expression": expression}]
    stated = "".join(facts.get_all("License") or []).strip()
    if stated in SPDX:
        return [{"license": {"id": stated}}]
    first = stated.splitlines()[0].strip() if stated else ""
    if first and len(first) <= LONGEST_NAME:
        return [{"license": {"name": first}}]
    classifiers = [one for one in facts.get_all("Classifier") or [] if one.startswith("License ::")]
    return [{"license": {"name": one.rpartition(" :: ")[2]}} for one in classifiers]


def _file(bundle: Bundle, artefact: Artefact, name: str) -> dict[str, Any]:
    data = (bundle.root / name).read_bytes()
    return {
        "type": "file",
        "bom-ref": f"file:{name}",
        "name": name,
        "description": f"{artefact.format} {artefact.precision}",
        "hashes": [
            {"alg": "SHA-256", "content": hashlib.sha256(data).hexdigest()},
            {"alg": "SHA-512", "content": hashlib.sha512(data).hexdigest()},
        ],
    }
