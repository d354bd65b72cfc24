"""OpenSSF Model Signing's own tool accepts what `tumorseg sign --model-signing` writes, and no change of it.

The tool runs in an environment of its own: `python -m venv build/model-signing`, there
`pip install model-signing pyopenssl`; TUMORSEG_MODEL_SIGNING names another one. Its packages on PyPI hold no
vectors; the kinds of the conformance suite's failing cases are made here of a signature of ours.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from reliability.bundles import make_bundle
from tumorseg_export.bundle.model_signing import PAYLOAD, load_p256_key
from tumorseg_export.bundle.sign import new_key
from tumorseg_export.commands.sign import sign
from tumorseg_runtime.bundle.bundle import SIGNATURE, Bundle
from tumorseg_runtime.core.errors import InputError

pytest.importorskip("cryptography", reason="cryptography is not installed (extra sign)")
ROOT = Path(__file__).parents[3]
TOOL = Path(os.environ.get("TUMORSEG_MODEL_SIGNING", ROOT / "build/model-signing")) / "bin/model_signing"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return _new_key(tmp_path / "p256.pem", "SECP256R1")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle")


def _new_key(path: Path, curve: str) -> Path:
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric import ec

    made = ec.generate_private_key(getattr(ec, curve)())
    path.write_bytes(made.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption()))
    path.with_suffix(".pub").write_bytes(
        made.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
    )
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(sign, [str(one) for one in arguments])


def test_the_statement_lists_every_file_and_the_signature_is_of_it(
    root: Path, key: Path, tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    out = tmp_path / "bundle.model.sig"
    done = run(root, "--key", key, "--model-signing", out, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["signature"] == str(out)
    envelope = json.loads(out.read_text())["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"])
    values = json.loads(payload)
    resources = {one["name"]: one["digest"] for one in values["predicate"]["resources"]}
    assert resources == {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }
    message = b"DSSEv1 %d %s %d %s" % (len(PAYLOAD), PAYLOAD.encode(), len(payload), payload)
    public = load_p256_key(key, lambda: "").public_key()
    public.verify(base64.b64decode(envelope["signatures"][0]["sig"]), message, ec.ECDSA(hashes.SHA256()))


def test_wrong_keys_and_places_are_one_line(root: Path, key: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.sig"
    new_key(tmp_path / "ed.pem")
    for bad, said in (
        (tmp_path / "ed.pem", "Ed25519PrivateKey"),
        (_new_key(tmp_path / "b.pem", "SECP384R1"), "secp384r1"),
    ):
        result = run(root, "--key", bad, "--model-signing", out)
        assert isinstance(result.exception, InputError)
        assert said in str(result.exception)
        assert "expected a private key on P-256" in str(result.exception)
    assert "lies in the bundle" in str(run(root, "--key", key, "--model-signing", root / "x").exception)
    assert "signs a bundle" in str(run("--new-key", tmp_path / "n.pem", "--model-signing", out).exception)
    assert "expected an Ed25519PrivateKey" in str(run(root, "--key", key).exception)
    assert not out.exists()
    assert Bundle.open(root)


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(not TOOL.is_file(), reason=f"no {TOOL}: the module's docstring says how to make it")
def test_the_public_tool_accepts_it_and_refuses_every_change(root: Path, key: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "bundle.model.sig", _new_key(tmp_path / "other.pem", "SECP256R1")
    assert run(root, "--key", key, "--model-signing", out).exit_code == 0
    new_key(tmp_path / "ed.pem")
    assert run(root, "--key", tmp_path / "ed.pem").exit_code == 0  # signed for devices later
    assert (root / SIGNATURE).is_file()

    def verified(folder: Path, signature: Path = out, public: Path = key) -> bool:
        command = [
            TOOL,
            "verify",
            "key",
            folder,
            "--signature",
            signature,
            "--public_key",
            public.with_suffix(".pub"),
        ]
        done = subprocess.run([str(one) for one in command], capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode == 0

    assert verified(root)
    assert not verified(root, public=other)
    for name, data in (("model.onnx", b"x"), ("bundle.json", b"{}"), ("new file", b"x")):
        copied = Path(shutil.copytree(root, tmp_path / name))
        (copied / name).write_bytes(data)
        assert not verified(copied), name
    copied = Path(shutil.copytree(root, tmp_path / "missing"))
    (copied / "model.onnx").unlink()
    assert not verified(copied)
    for name, text in damaged(out.read_text()).items():
        (tmp_path / "damaged.sig").write_text(text)
        assert not verified(root, tmp_path / "damaged.sig"), name


def damaged(text: str) -> dict[str, str]:
    """The kinds of the format's published conformance cases that must fail, made of a signature of ours."""

    def changed(change: Callable[[dict[str, Any], dict[str, Any]], object]) -> str:
        values = json.loads(text)
        statement = json.loads(base64.b64decode(values["dsseEnvelope"]["payload"]))
        change(values, statement)
        values["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
        return json.dumps(values)

    return {
        "a file less in the statement": changed(
            lambda _, statement: statement["predicate"]["resources"].pop()
        ),
        "other hashes": changed(
            lambda _, statement: statement["subject"][0]["digest"].update(sha256="0" * 64)
        ),
        "no signature": changed(lambda values, _: values["dsseEnvelope"].update(signatures=[])),
        "another media type": changed(lambda values, _: values.update(mediaType="application/json")),
        "no envelope": json.dumps({"mediaType": json.loads(text)["mediaType"]}),
        "cut off": text[: len(text) // 2],
        "empty": "",
        "no JSON": "x" * 100,
    }
