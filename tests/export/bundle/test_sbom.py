import dataclasses
import json
import re
from email.message import Message
from importlib.metadata import version

import pytest

from tumorseg_export.bundle import sbom
from tumorseg_export.bundle.sbom import FILE, document, licences_of, versions_in
from tumorseg_runtime.bundle.bundle import Artefact, Bundle


def check_shape(values: dict) -> None:
    """What CycloneDX 1.5 demands of the fields that are used here."""
    assert set(values) == {
        "$schema", "bomFormat", "specVersion", "version", "metadata", "components", "dependencies",
    }  # fmt: skip
    assert (values["bomFormat"], values["specVersion"], values["version"]) == ("CycloneDX", "1.5", 1)
    model = values["metadata"]["component"]
    components = [model, *model["components"], *values["components"]]
    kinds = {"machine-learning-model", "file", "library", "platform"}
    for component in components:
        assert component["type"] in kinds
        assert isinstance(component["name"], str)
        assert component["name"]
        assert set(component) <= {
            "type", "bom-ref", "name", "version", "description", "purl", "licenses", "hashes", "components",
        }  # fmt: skip
        licences = component.get("licenses", [])
        assert all(set(one) in ({"expression"}, {"license"}) for one in licences)
        assert len(licences) == 1 or all("license" in one for one in licences)
        for one in licences:
            assert "expression" in one or set(one["license"]) in ({"id"}, {"name"})
        for one in component.get("hashes", []):
            assert one["alg"] == "SHA-256"
            assert re.fullmatch("[0-9a-f]{64}", one["content"])
    references = [component["bom-ref"] for component in components]
    assert len(set(references)) == len(references)
    for dependency in values["dependencies"]:
        assert {dependency["ref"], *dependency.get("dependsOn", [])} <= set(references)
    assert len({dependency["ref"] for dependency in values["dependencies"]}) == len(values["dependencies"])


def test_it_is_under_seal_and_names_packages_and_artefacts(tiny_bundle: Bundle) -> None:
    values = json.loads((tiny_bundle.root / FILE).read_text(encoding="utf-8"))
    assert FILE in tiny_bundle.files
    check_shape(values)
    packages = {component["name"]: component for component in values["components"]}
    versions = tiny_bundle.provenance["versions"]
    for name in ("torch", "onnx", "onnxscript", "timm", "segmentation-models-pytorch", "numpy", "tumorseg"):
        assert packages[name]["version"] == versions[name]
        assert packages[name]["purl"] == f"pkg:pypi/{name}@{versions[name]}"
    assert packages["python"]["purl"] == f"pkg:generic/python@{versions['python']}"
    model = values["metadata"]["component"]
    hashes = {one["name"]: one["hashes"][0]["content"] for one in model["components"]}
    assert hashes == {
        artefact.file: tiny_bundle.files[artefact.file].sha256 for artefact in tiny_bundle.artefacts
    }
    assert model["version"] == tiny_bundle.provenance["checkpoint_sha256"]


def test_the_same_bundle_gives_the_same_bytes(tiny_bundle: Bundle) -> None:
    text = (tiny_bundle.root / FILE).read_text(encoding="utf-8")
    assert json.dumps(document(tiny_bundle), indent=2, ensure_ascii=False) + "\n" == text
    assert "serialNumber" not in text
    assert "timestamp" not in text
    assert str(tiny_bundle.root) not in text


def test_tools_of_an_artefact_are_packages_too(tiny_bundle: Bundle) -> None:
    tools = {"Jetson_Tool": "10.3+cu12", "onnx": "a build of its own name"}
    artefact = Artefact("model.onnx", "mnn", "fp32", None, tools, ())
    bundle = dataclasses.replace(tiny_bundle, artefacts=(artefact,))
    found = {"jetson-tool": "10.3+cu12", "onnx": version("onnx")}  # the registry's version where there is one
    assert found.items() <= versions_in(bundle).items()
    values = document(bundle)
    check_shape(values)
    assert "pkg:pypi/jetson-tool@10.3%2Bcu12" in [one["purl"] for one in values["components"]]


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"License-Expression": "MIT AND Zlib", "License": "MIT"}, [{"expression": "MIT AND Zlib"}]),
        ({"License": "Apache-2.0"}, [{"license": {"id": "Apache-2.0"}}]),
        ({"License": "MIT License\n\nCopyright (c) someone"}, [{"license": {"name": "MIT License"}}]),
        (
            {"License": "word " * 20, "Classifier": "License :: OSI Approved :: BSD License"},
            [{"license": {"name": "BSD License"}}],
        ),
        ({"Classifier": "Typing :: Typed"}, []),
    ],
)
def test_licences_as_the_metadata_state_them(
    monkeypatch: pytest.MonkeyPatch, facts: dict[str, str], expected: list[dict]
) -> None:
    message = Message()
    for name, value in facts.items():
        message[name] = value
    monkeypatch.setattr(sbom, "metadata", lambda name: message)
    assert licences_of("package") == expected


def test_a_tool_without_metadata_has_no_licence() -> None:
    assert licences_of("no-such-package-anywhere") == []
