"""Signatures of bundles, checked by the runtime. The keys are made here by `cryptography` alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tumorseg_runtime.bundle.bundle import INDEX, SIGNATURE, Bundle
from tumorseg_runtime.bundle.signature import LENGTH, fingerprint, load_public_key
from tumorseg_runtime.cli.store import install as install_command
from tumorseg_runtime.cli.verify import verify
from tumorseg_runtime.core.errors import BundleError, CheckFailedError, InputError
from tumorseg_runtime.deployment import store as store_module
from tumorseg_runtime.deployment.store import install, open_active

ed25519 = pytest.importorskip(
    "cryptography.hazmat.primitives.asymmetric.ed25519", reason="cryptography is not installed (extra sign)"
)
serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")

# RFC 8032, section 7.1, test 1: public key and the signature of the empty message.
RFC_PUBLIC = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
RFC_SIGNATURE = (
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
    "d25bf5f0595bbe24655141438e7a100b"
)


@pytest.fixture
def key() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def write_public(path: Path, key: ed25519.Ed25519PrivateKey) -> Path:
    pem = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    path.write_bytes(key.public_key().public_bytes(*pem))
    return path


@pytest.fixture
def public(key: ed25519.Ed25519PrivateKey, tmp_path: Path) -> Path:
    return write_public(tmp_path / "key.pub.pem", key)


@pytest.fixture
def signed(small_bundle: Path, tmp_path: Path, key: ed25519.Ed25519PrivateKey) -> Path:
    copy = Path(shutil.copytree(small_bundle, tmp_path / "bundle"))
    (copy / SIGNATURE).write_bytes(key.sign((copy / INDEX).read_bytes()))
    return copy


def test_signed_bundle_opens_as_before_and_names_its_key(
    signed: Path, small_bundle: Path, public: Path, key: ed25519.Ed25519PrivateKey
) -> None:
    bundle = Bundle.open(signed)
    assert bundle.digest() == Bundle.open(small_bundle).digest()
    assert bundle.signed_by(public) == fingerprint(key.public_key())
    assert len(fingerprint(key.public_key())) == 64


def test_a_known_answer() -> None:
    key = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(RFC_PUBLIC))
    key.verify(bytes.fromhex(RFC_SIGNATURE), b"")  # raises if not
    assert fingerprint(key) == "21fe31dfa154a261626bf854046fd2271b7bed4b6abe45aa58877ef47f9721b9"


def test_another_key_an_altered_index_and_a_flipped_bit_are_refused(signed: Path, public: Path) -> None:
    other = write_public(public.with_name("other.pub.pem"), ed25519.Ed25519PrivateKey.generate())
    with pytest.raises(CheckFailedError, match="another key signed it"):
        Bundle.open(signed).signed_by(other)
    signature = (signed / SIGNATURE).read_bytes()
    for at in (0, LENGTH - 1):
        flipped = bytearray(signature)
        flipped[at] ^= 1
        (signed / SIGNATURE).write_bytes(flipped)
        with pytest.raises(CheckFailedError, match="is not this key's"):
            Bundle.open(signed).signed_by(public)
    (signed / SIGNATURE).write_bytes(signature)
    values = json.loads((signed / INDEX).read_text())
    (signed / INDEX).write_text(json.dumps({**values, "name": "other"}))
    bundle = Bundle.open(signed)  # the seal alone cannot tell
    with pytest.raises(CheckFailedError, match="the bundle was altered"):
        bundle.signed_by(public)


@pytest.mark.parametrize("content", [b"", b"x" * (LENGTH - 1), b"x" * (LENGTH + 1)])
def test_signature_of_a_wrong_length_is_refused(signed: Path, public: Path, content: bytes) -> None:
    (signed / SIGNATURE).write_bytes(content)
    with pytest.raises(CheckFailedError, match=r"is no signature \(it has .*\), expected the 64"):
        Bundle.open(signed, public)


def test_missing_signature_is_refused(small_bundle: Path, signed: Path, public: Path) -> None:
    with pytest.raises(CheckFailedError, match=r"has no bundle\.json\.sig, expected a signed bundle"):
        Bundle.open(small_bundle).signed_by(public)
    (signed / SIGNATURE).rename(signed.parent / "moved.sig")
    (signed / SIGNATURE).symlink_to(signed.parent / "moved.sig")
    with pytest.raises(CheckFailedError, match=r"is no signature \(it is a link\)"):
        Bundle.open(signed, public)


def test_the_seal_tolerates_that_one_file_alone(signed: Path) -> None:
    (signed / "golden" / SIGNATURE).write_bytes(b"x" * LENGTH)
    with pytest.raises(BundleError, match=r"golden/bundle\.json\.sig does not belong to it"):
        Bundle.open(signed)
    (signed / "golden" / SIGNATURE).unlink()
    (signed / "other.sig").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"other\.sig does not belong to it"):
        Bundle.open(signed)


def test_files_that_hold_no_public_key_are_refused(tmp_path: Path, key: ed25519.Ed25519PrivateKey) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

    path = tmp_path / "key.pem"
    with pytest.raises(InputError, match=r"cannot be read .*expected a PEM file"):
        load_public_key(path)
    path.write_bytes(b"not a key")
    with pytest.raises(InputError, match="holds no public key in PEM"):
        load_public_key(path)
    form = serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    with pytest.raises(InputError, match="holds a private key, expected the public one"):
        load_public_key(path)
    pem = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    path.write_bytes(generate_private_key(SECP256R1()).public_key().public_bytes(*pem))
    with pytest.raises(InputError, match="holds an ECPublicKey, expected an Ed25519PublicKey"):
        load_public_key(path)


@pytest.mark.usefixtures("few_conformance_files")
def test_verify_demands_the_signature_before_anything_is_run(
    signed: Path, public: Path, key: ed25519.Ed25519PrivateKey
) -> None:
    arguments = [str(signed), "--backend", "onnxruntime", "--device", "cpu", "--public-key", str(public)]
    done = CliRunner().invoke(verify, [*arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    assert json.loads(done.stdout)["signed_by"] == fingerprint(key.public_key())
    done = CliRunner().invoke(verify, arguments, catch_exceptions=False)
    assert f"signed by the key {fingerprint(key.public_key())}" in done.stdout
    (signed / SIGNATURE).unlink()
    done = CliRunner().invoke(verify, arguments)
    assert isinstance(done.exception, CheckFailedError)
    assert done.stdout == ""


@pytest.mark.process
def test_without_cryptography_the_extra_is_named(signed: Path, public: Path) -> None:
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from tumorseg_runtime.bundle.bundle import Bundle\n"
        "from tumorseg_runtime.core.errors import BackendError\n"
        "bundle = Bundle.open(sys.argv[1])\n"
        "try: bundle.signed_by(sys.argv[2])\n"
        "except BackendError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, str(signed), str(public)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.count("\n") == 1
    assert "which is not installed: pip install 'tumorseg[sign]'" in done.stdout


@pytest.mark.usefixtures("few_conformance_files")
def test_install_demands_the_signature_before_anything_is_activated(
    signed: Path, small_bundle: Path, public: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    other = write_public(tmp_path / "other.pem", ed25519.Ed25519PrivateKey.generate())
    refusals = ((small_bundle, public, f"has no {SIGNATURE}"), (signed, other, "is not this key's"))
    for source, key_file, message in refusals:
        result = CliRunner().invoke(install_command, [str(store), str(source), "--public-key", str(key_file)])
        assert isinstance(result.exception, CheckFailedError)
        assert message in str(result.exception)
        assert not (store / "active.json").exists()
        assert list((store / "bundles").iterdir()) == []
    result = CliRunner().invoke(install_command, [str(store), str(signed), "--public-key", str(public)])
    assert result.exit_code == 0, result.output
    assert open_active(store).signed_by(public)


def test_a_signature_that_is_swapped_while_it_is_copied_is_noticed(
    signed: Path, public: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = store_module._copy

    def swapped(bundle: Bundle, part: Path) -> None:
        real(bundle, part)
        (part / SIGNATURE).write_bytes(bytes(LENGTH))

    monkeypatch.setattr(store_module, "_copy", swapped)
    with pytest.raises(CheckFailedError, match="is not this key's"):
        install(tmp_path / "store", signed, public_key=public)
    assert not (tmp_path / "store/active.json").exists()


@pytest.mark.usefixtures("few_conformance_files")
def test_a_bundle_that_was_installed_unsigned_gets_its_signature(
    signed: Path, small_bundle: Path, public: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    install(store, small_bundle)
    with pytest.raises(CheckFailedError, match=f"has no {SIGNATURE}"):
        install(store, small_bundle, public_key=public)
    install(store, signed, public_key=public)
    assert open_active(store).signed_by(public)
