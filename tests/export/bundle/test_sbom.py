import dataclasses
import hashlib
import json
from email.message import Message
from importlib.metadata import version

import pytest

from tumorseg_export.bundle import sbom
from tumorseg_export.bundle.sbom import FILE, document, licences_of, versions_in
from tumorseg_runtime.bundle.bundle import Artefact, Bundle


def check_shape(values: dict) -> None:
    """The official schema, which comes with cyclonedx-python-lib, and references that lead somewhere."""
    validation = pytest.importorskip("cyclonedx.validation.json", reason="cyclonedx-python-lib: extra dev")
    from cyclonedx.schema import SchemaVersion

    assert values["specVersion"] == "1.7"
    fault = validation.JsonStrictValidator(SchemaVersion.V1_7).validate_str(json.dumps(values))
    assert fault is None, fault
    model = values["metadata"]["component"]
    components = [model, *model["components"], *values["components"]]
    references = [component["bom-ref"] for component in components]
    assert len(set(references)) == len(references)
    for dependency in values["dependencies"]:
        assert {dependency["ref"], *dependency.get("dependsOn", [])} <= set(references)
    assert {one["ref"] for one in model["modelCard"]["modelParameters"].get("datasets", [])} <= set(
        references
    )


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
    hashes = {
        one["name"]: {each["alg"]: each["content"] for each in one["hashes"]} for one in model["components"]
    }
    for artefact in tiny_bundle.artefacts:
        data = (tiny_bundle.root / artefact.file).read_bytes()
        assert hashes.pop(artefact.file) == {
            "SHA-256": tiny_bundle.files[artefact.file].sha256,
            "SHA-512": hashlib.sha512(data).hexdigest(),
        }
    assert not hashes
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
    assert "pkg:pypi/jetson-tool@10.3%2Bcu12" in [one.get("purl") for one in values["components"]]


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


def test_the_model_card_says_data_figures_and_limits(tiny_bundle: Bundle) -> None:
    test = {
        "mean_dice": 0.5,
        "images": 7,
        "by_organ": {"brain": 0.5},
        "intervals": {"mean_dice": [0.25, 0.75]},
    }
    training = {**tiny_bundle.training, "metrics": {"test": test}}
    values = document(dataclasses.replace(tiny_bundle, training=training))
    check_shape(values)
    card = values["metadata"]["component"]["modelCard"]
    assert card["quantitativeAnalysis"]["performanceMetrics"] == [
        {
            "type": "mean_dice",
            "value": "0.5",
            "slice": "test part",
            "confidenceInterval": {"lowerBound": "0.25", "upperBound": "0.75"},
        },
        {"type": "images", "value": "7", "slice": "test part"},
    ]
    assert card["modelParameters"]["modelArchitecture"] == "unet resnet18"
    assert (
        "A mask comes without a measure of its certainty." in card["considerations"]["technicalLimitations"]
    )
    (data,) = (one for one in values["components"] if one["type"] == "data")
    facts = {one["name"]: one["value"] for one in data["properties"]}
    assert facts["tumorseg:split_sha256"] == tiny_bundle.provenance["split_sha256"]
    assert "licenses" not in data
    drawn = document(dataclasses.replace(tiny_bundle, training={**training, "phantoms": True}))
    check_shape(drawn)
    assert {"license": {"id": "Apache-2.0"}} in drawn["components"][-1]["licenses"]


def test_a_foreign_checkpoint_claims_no_data_and_no_figures(tiny_bundle: Bundle) -> None:
    training = {**tiny_bundle.training, "data": {}, "metrics": {}, "phantoms": None}
    values = document(dataclasses.replace(tiny_bundle, training=training))
    check_shape(values)
    card = values["metadata"]["component"]["modelCard"]
    assert card["quantitativeAnalysis"]["performanceMetrics"] == []
    assert not {"approach", "datasets"} & set(card["modelParameters"])
