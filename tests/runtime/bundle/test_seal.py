"""What is used of a bundle is what was hashed, whatever happens to its files meanwhile."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tumorseg_runtime import Segmenter
from tumorseg_runtime.backends import BACKENDS, open_session, why_unavailable
from tumorseg_runtime.bundle.bundle import INDEX, INDEX_HASH, Bundle, index_hash_text
from tumorseg_runtime.core.errors import BackendError, BundleError, CheckFailedError
from tumorseg_runtime.device.cache import read_ranking
from tumorseg_runtime.device.trust import require_trusted

pytestmark = pytest.mark.fault

BLACK = np.zeros((64, 64), np.uint8)
ON_CPU = [name for name, spec in BACKENDS.items() if "cpu" in spec.devices]


@pytest.fixture
def copy(small_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_bundle, tmp_path / "copy"))


def forged(model: Path) -> bytes:
    """The network with a bias that calls everything a tumour; its size is the same."""
    import onnx

    network = onnx.load(model)
    for tensor in network.graph.initializer:
        if tensor.name == "bias":
            tensor.raw_data = np.full(
                1, 9e3, np.float64 if len(tensor.raw_data) == 8 else np.float32
            ).tobytes()
    return bytes(network.SerializeToString())


def test_a_network_that_is_replaced_after_the_check_is_not_served(copy: Path) -> None:
    bundle, forgery = Bundle.open(copy), forged(copy / "model.onnx")
    (copy / "model.onnx").write_bytes(forgery)
    with pytest.raises(BundleError, match=r"model\.onnx is no longer as it was sealed"):
        Segmenter.open(bundle)


def test_what_is_replaced_during_the_opening_does_not_matter(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgery, real = forged(copy / "model.onnx"), Bundle.problems

    def replaced_after_the_check(bundle: Bundle, hold: object = ()) -> list[str]:
        problems = real(bundle, hold)  # type: ignore[arg-type]
        (copy / "model.onnx").write_bytes(forgery)
        return problems

    monkeypatch.setattr(Bundle, "problems", replaced_after_the_check)
    assert not Segmenter.open(copy).predict(BLACK).mask.any()


def test_opening_a_folder_reads_and_hashes_its_network_once(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tumorseg_runtime.bundle import seal

    opened: list[str] = []
    for name in ("open_regular", "read_regular"):
        real = getattr(seal, name)
        monkeypatch.setattr(
            seal, name, lambda path, *rest, real=real: (opened.append(Path(path).name), real(path, *rest))[1]
        )
    Segmenter.open(copy)
    assert opened.count("model.onnx") == 1
    assert opened.count(INDEX_HASH) <= 2  # for the index, and whether it is a file


def test_a_session_that_is_opened_again_is_made_of_what_was_hashed(copy: Path) -> None:
    segmenter = Segmenter.open(copy)
    (copy / "model.onnx").write_bytes(forged(copy / "model.onnx"))

    class Broken:
        input, output, info, restarts = segmenter._keeper.input, "logits", segmenter.info, False

        def infer(self, batch: object) -> None:
            raise ZeroDivisionError("a library's own")

        def close(self) -> None:
            pass

    segmenter._keeper._session = Broken()  # type: ignore[assignment]
    with pytest.raises(BackendError, match="ZeroDivisionError"):
        segmenter.predict(BLACK)
    with pytest.raises(BackendError, match="no longer as it was sealed"):
        segmenter.predict(BLACK)


@pytest.mark.process
@pytest.mark.parametrize("backend", ON_CPU)
def test_every_backend_gets_bytes_that_were_hashed(
    copy: Path, backend: str, convert_bundle: Callable[[Path, str], None]
) -> None:
    if reason := why_unavailable(backend, "cpu"):
        pytest.skip(reason)
    format = BACKENDS[backend].formats[-1]
    if format != "onnx":
        convert_bundle(copy, format)
    bundle = Bundle.open(copy)
    held = {name: bundle.read(name) for name in bundle.artefact(format, "fp32").files}
    for name in held:
        (copy / name).unlink()
    with pytest.raises(BundleError, match="is no longer as it was sealed"):
        open_session(bundle, backend=backend)
    bundle.held.update(held)
    session = open_session(bundle, backend=backend, threads=1)  # no file of it is there
    session.close()


@pytest.mark.parametrize("kind", ["fifo", "device", "link"])
def test_an_index_that_is_no_file_is_one_line(copy: Path, kind: str) -> None:
    (copy / INDEX).rename(copy.parent / INDEX)
    if kind == "fifo":
        os.mkfifo(copy / INDEX)
    else:
        (copy / INDEX).symlink_to("/dev/zero" if kind == "device" else copy.parent / INDEX)
    with pytest.raises(BundleError, match=r"it is a link|no regular file") as caught:
        Bundle.open(copy)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_a_fifo_or_in_a_linked_folder_is_refused(copy: Path) -> None:
    (copy / "golden").rename(copy.parent / "golden")
    (copy / "golden").symlink_to(copy.parent / "golden")
    with pytest.raises(BundleError, match="golden does not belong to it"):
        Bundle.open(copy)
    (copy / "golden").unlink()
    (copy.parent / "golden").rename(copy / "golden")
    (copy / "model.onnx").unlink()
    os.mkfifo(copy / "model.onnx")
    with pytest.raises(BundleError, match="no regular file"):
        Bundle.open(copy)


def test_every_flipped_bit_of_an_unsigned_index_is_found_by_its_hash(copy: Path) -> None:
    index = (copy / INDEX).read_bytes()
    (copy / INDEX_HASH).write_text(index_hash_text(index))
    assert Bundle.open(copy).digest() == index_hash_text(index)[:64]
    at = index.index(b'"threshold": 0.5')
    for bit in range(8 * 16):
        flipped = bytearray(index)
        flipped[at + bit // 8] ^= 1 << bit % 8
        (copy / INDEX).write_bytes(flipped)
        with pytest.raises(BundleError, match=r"bundle\.json\.sha256 says"):
            Bundle.read_index(copy)


def test_nothing_is_parsed_before_the_signature_is_checked(copy: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    key = ed25519.Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "pub.pem").write_bytes(key.public_key().public_bytes(*pem))
    (copy / "bundle.json.sig").write_bytes(key.sign((copy / INDEX).read_bytes()))
    assert not Segmenter.open(copy, public_key=tmp_path / "pub.pem").predict(BLACK).mask.any()
    (copy / INDEX).write_bytes(b"[" * 1000)
    with pytest.raises(CheckFailedError, match="is not this key's"):
        Segmenter.open(copy, public_key=tmp_path / "pub.pem")


def test_a_device_folder_that_others_may_write_is_not_believed(copy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "device"
    folder.mkdir(0o755)
    bundle = Bundle.open(copy)
    assert read_ranking(folder, bundle) is None
    for mode in (0o777, 0o775):
        folder.chmod(mode)
        with pytest.raises(BundleError, match="others may change it"):
            read_ranking(folder, bundle)
    folder.chmod(0o755)
    (folder / "ranking.json").symlink_to(copy / INDEX)
    with pytest.raises(BundleError, match="others may change it"):
        read_ranking(folder, bundle)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_device_folder_of_somebody_else_is_not_believed(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(BundleError, match="belongs to user 12345"):
        require_trusted(tmp_path)
