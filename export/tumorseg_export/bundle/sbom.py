"""`sbom.cdx.json`: the packages that made a bundle and the artefacts that came out, as CycloneDX 1.5.

The document holds no time, no serial number and no path, so that the same bundle gives the same bytes.
Written by hand: the form is small, and a library for it would bring more packages than it describes.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, metadata, version
from typing import Any
from urllib.parse import quote

from tumorseg_runtime.bundle.bundle import Artefact, Bundle, sha256_of
from tumorseg_runtime.core.files import write_text
from tumorseg_runtime.core.records import to_json

FILE = "sbom.cdx.json"
SPEC = "1.5"  # the oldest that knows machine-learning models
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
    model = {
        "type": "machine-learning-model",
        "bom-ref": f"model:{bundle.name}",
        "name": bundle.name,
        "version": bundle.provenance["checkpoint_sha256"],
        "components": [
            _file(bundle, artefact, name) for artefact in bundle.artefacts for name in artefact.files
        ],
    }
    references = [package["bom-ref"] for package in packages]
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "version": 1,
        "metadata": {"component": model},
        "components": packages,
        "dependencies": [
            {"ref": model["bom-ref"], "dependsOn": references},
            *({"ref": reference} for reference in references),
        ],
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
    return {
        "type": "file",
        "bom-ref": f"file:{name}",
        "name": name,
        "description": f"{artefact.format} {artefact.precision}",
        "hashes": [{"alg": "SHA-256", "content": sha256_of(bundle.root / name)}],
    }
