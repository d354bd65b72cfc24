import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from tumorseg_export.bundle.sign import load_private_key, new_key, sign_bundle
from tumorseg_export.bundle.staging import check_replaceable
from tumorseg_export.commands.sign import sign
from tumorseg_runtime.bundle.bundle import INDEX, SIGNATURE, Bundle
from tumorseg_runtime.bundle.signature import fingerprint
from tumorseg_runtime.core.errors import BundleError, CheckFailedError, InputError

pytest.importorskip("cryptography", reason="cryptography is not installed (extra sign)")


@pytest.fixture
def copied_bundle(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle.root, tmp_path / "bundle"))


def ask_nothing() -> str:
    raise AssertionError("this key is not encrypted")


def test_new_key_is_for_its_owner_and_is_never_replaced(tmp_path: Path) -> None:
    public = new_key(tmp_path / "key.pem")
    assert public == tmp_path / "key.pub.pem"
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
    assert b"PRIVATE" not in public.read_bytes()
    before = (tmp_path / "key.pem").read_bytes()
    with pytest.raises(InputError, match=r"key\.pem: exists, expected a new file"):
        new_key(tmp_path / "key.pem")
    (tmp_path / "other.pub.pem").touch()
    with pytest.raises(InputError, match=r"other\.pub\.pem: exists"):
        new_key(tmp_path / "other.pem")
    assert not (tmp_path / "other.pem").exists()
    assert (tmp_path / "key.pem").read_bytes() == before
    with pytest.raises(InputError, match="cannot be written"):
        new_key(tmp_path / "absent" / "key.pem")


def test_signed_bundle_verifies_with_its_public_key_alone(copied_bundle: Path, tmp_path: Path) -> None:
    public, other = new_key(tmp_path / "key.pem"), new_key(tmp_path / "other.pem")
    key = load_private_key(tmp_path / "key.pem", ask_nothing)
    digest = Bundle.open(copied_bundle).digest()
    assert sign_bundle(Bundle.open(copied_bundle), key) == copied_bundle / SIGNATURE
    bundle = Bundle.open(copied_bundle)
    assert bundle.digest() == digest
    assert bundle.signed_by(public) == fingerprint(key.public_key())
    with pytest.raises(CheckFailedError, match="is not this key's"):
        bundle.signed_by(other)
    check_replaceable(copied_bundle)  # a signature does not make it somebody's own folder


def test_signing_twice_gives_the_same_bytes_and_another_signature_stays(
    copied_bundle: Path, tmp_path: Path
) -> None:
    new_key(tmp_path / "key.pem")
    new_key(tmp_path / "other.pem")
    key = load_private_key(tmp_path / "key.pem", ask_nothing)
    first = sign_bundle(Bundle.open(copied_bundle), key).read_bytes()
    assert sign_bundle(Bundle.open(copied_bundle), key).read_bytes() == first
    with pytest.raises(InputError, match="is another signature, expected none or this key's"):
        sign_bundle(Bundle.open(copied_bundle), load_private_key(tmp_path / "other.pem", ask_nothing))
    assert (copied_bundle / SIGNATURE).read_bytes() == first


def test_encrypted_key_asks_for_its_passphrase(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    encryption = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.PKCS8
    path = tmp_path / "key.pem"
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, encryption))
    opened = load_private_key(path, lambda: "secret")
    assert opened.public_key() == key.public_key()
    with pytest.raises(InputError, match="a key that this passphrase does not open"):
        load_private_key(path, lambda: "wrong")


def test_files_that_hold_no_private_key_are_refused(tmp_path: Path) -> None:
    public = new_key(tmp_path / "key.pem")
    with pytest.raises(InputError, match="holds no private key in PEM"):
        load_private_key(public, ask_nothing)
    with pytest.raises(InputError, match=r"cannot be read .* expected a PEM file"):
        load_private_key(tmp_path / "absent.pem", ask_nothing)


def test_command_makes_keys_and_signs(copied_bundle: Path, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    done = CliRunner().invoke(sign, ["--new-key", str(key)], catch_exceptions=False)
    assert "key.pub.pem: the public key, for devices" in done.stdout
    done = CliRunner().invoke(sign, [str(copied_bundle), "--key", str(key)], catch_exceptions=False)
    assert Bundle.open(copied_bundle).signed_by(tmp_path / "key.pub.pem") in done.stdout


@pytest.mark.fault
def test_damaged_bundle_is_not_signed(copied_bundle: Path, tmp_path: Path) -> None:
    new_key(tmp_path / "key.pem")
    (copied_bundle / "MODEL_CARD.md").write_text("another card")
    with pytest.raises(BundleError, match=r"MODEL_CARD\.md has"):
        CliRunner().invoke(
            sign, [str(copied_bundle), "--key", str(tmp_path / "key.pem")], catch_exceptions=False
        )
    assert not (copied_bundle / SIGNATURE).exists()


@pytest.mark.parametrize(
    "arguments", [[], ["bundle"], ["--key", "k.pem"], ["bundle", "--key", "k.pem", "--new-key", "n.pem"]]
)
def test_wrong_use_is_refused(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("bundle", "k.pem"):
        Path(name).touch()
    with pytest.raises(InputError, match="expected either BUNDLE with --key FILE, or --new-key FILE"):
        CliRunner().invoke(sign, arguments, catch_exceptions=False)


@pytest.mark.process
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_makes_keys_that_sign_and_checks_the_signature(copied_bundle: Path, tmp_path: Path) -> None:
    def openssl(*arguments: str) -> str:
        done = subprocess.run(
            ["openssl", *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout

    openssl("genpkey", "-algorithm", "ed25519", "-out", "key.pem")
    openssl("pkey", "-in", "key.pem", "-pubout", "-out", "key.pub.pem")
    sign_bundle(Bundle.open(copied_bundle), load_private_key(tmp_path / "key.pem", ask_nothing))
    Bundle.open(copied_bundle).signed_by(tmp_path / "key.pub.pem")
    message, signature = (os.fspath(copied_bundle / name) for name in (INDEX, SIGNATURE))
    key = "pkeyutl", "-verify", "-pubin", "-inkey", "key.pub.pem"
    assert "Success" in openssl(*key, "-rawin", "-in", message, "-sigfile", signature)
