from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fakes.session import FakeSession
from tumorseg_runtime import Segmenter
from tumorseg_runtime.backends import selection as module
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import BackendError, BundleError
from tumorseg_runtime.core.session import Session, SessionInfo
from tumorseg_runtime.device.cache import Entry, beside, write_ranking

VERSIONS = {"fake": "1"}


def entry(backend: str, seconds: float | None, **other: object) -> Entry:
    values: dict[str, object] = {"device": "cpu", "precision": "fp32", "batch": 1, "versions": VERSIONS}
    values |= {"parity": "passed", "median_s": seconds, **other}
    return Entry(backend, **values)  # type: ignore[arg-type]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the backends that were opened, all of them fakes; openvino cannot be opened."""
    names: list[str] = []

    def open_session(bundle: Bundle, *, backend: str, device: str, precision: str, **_: object) -> Session:
        names.append(f"{backend} {device} {precision}")
        if backend == "openvino":
            raise BackendError("openvino is not installed")
        session = FakeSession()
        session.info = SessionInfo(backend, device, precision, VERSIONS)
        return session

    monkeypatch.setattr(module, "open_session", open_session)
    monkeypatch.setattr("tumorseg_runtime.inference.gpu_process.open_session", open_session)
    return names


@pytest.fixture
def bundle(make_bundle: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Bundle.open(make_bundle(tmp_path / "bundle"))


def test_without_a_ranking_onnx_runtime_serves(bundle: Bundle) -> None:
    info = Segmenter.open(bundle, backend="auto", self_test=True, threads=1).info
    assert (info.backend, info.device, info.precision) == ("onnxruntime", "cpu", "fp32")
    assert len(info.choice) == 1
    assert "no ranking.json of this device" in info.choice[0]
    assert Segmenter.open(bundle, threads=1).info.choice == ()


def test_without_a_ranking_the_precision_that_is_there_serves(bundle: Bundle, opened: list[str]) -> None:
    halves = tuple(dataclasses.replace(one, precision="fp16") for one in bundle.artefacts)
    fp16 = dataclasses.replace(bundle, artefacts=halves)
    assert Segmenter.open(fp16, backend="auto").info.precision == "fp16"
    assert Segmenter.open(fp16, backend="auto", precision="fp32").info.precision == "fp32"
    assert opened == ["onnxruntime cpu fp16", "onnxruntime cpu fp32"]  # as asked: a real one refuses


def test_the_first_that_passed_parity_here_serves_and_the_others_have_their_reason(
    bundle: Bundle, opened: list[str]
) -> None:
    write_ranking(
        beside(bundle),
        bundle,
        (
            entry("mnn", 0.1, parity="refused", detail="2 pixels flipped"),
            entry("openvino", 0.2),
            entry("mnn-exact", 0.3, versions={"fake": "0"}),
            entry("gone", 0.31),
            entry("onnxruntime", 0.35, parity="unverified"),
            entry("ncnn", 0.4),
            entry("onnxruntime", 0.5),
            entry("tensorrt", None, device="cuda", detail="no NVIDIA driver"),
        ),
    )
    info = Segmenter.open(bundle, backend="auto").info
    assert info.backend == "ncnn"
    assert opened == ["openvino cpu fp32", "mnn-exact cpu fp32", "ncnn cpu fp32"]
    assert info.choice == (
        "chosen: ncnn cpu fp32: number 6 of 8 in ranking.json",
        "not chosen: mnn cpu fp32: parity refused (2 pixels flipped)",
        "not chosen: openvino cpu fp32: openvino is not installed",
        "not chosen: mnn-exact cpu fp32: was measured with {'fake': '0'}, here is {'fake': '1'}",
        "not chosen: gone cpu fp32: no such backend in this version of tumorseg",
        "not chosen: onnxruntime cpu fp32: parity unverified",
        "not chosen: onnxruntime cpu fp32: slower",
        "not chosen: tensorrt cuda fp32: slower",
    )


def test_device_and_precision_are_kept_where_asked_for(bundle: Bundle, opened: list[str]) -> None:
    write_ranking(
        beside(bundle),
        bundle,
        (
            entry("tensorrt", 0.01, device="cuda", precision="fp16"),
            entry("onnxruntime", 0.02, device="cuda"),
            entry("ncnn", 0.4),
        ),
    )
    assert Segmenter.open(bundle, backend="auto").info.precision == "fp16"
    assert Segmenter.open(bundle, backend="auto", precision="fp32").info.device == "cuda"
    info = Segmenter.open(bundle, backend="auto", device="cpu").info
    assert info.backend == "ncnn"
    assert "not chosen: tensorrt cuda fp16: device cpu was asked for" in info.choice


def test_a_ranking_of_which_nothing_serves_is_an_error(bundle: Bundle, opened: list[str]) -> None:
    write_ranking(beside(bundle), bundle, (entry("mnn", 0.1, parity="refused"),))
    with pytest.raises(BackendError, match=r"no backend in ranking.json can serve \(not chosen: mnn"):
        Segmenter.open(bundle, backend="auto")
    (beside(bundle) / "ranking.json").write_text("{")
    with pytest.raises(BundleError, match=r"ranking\.json: is no ranking of backends: cannot be read"):
        Segmenter.open(bundle, backend="auto")


@pytest.mark.fault
def test_a_session_that_dies_is_opened_again_on_the_same_backend(
    bundle: Bundle, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_ranking(beside(bundle), bundle, (entry("ncnn", 0.1), entry("mnn", 0.2)))
    segmenter = Segmenter.open(bundle, backend="auto")

    def die(*_: object) -> None:
        raise BackendError("gone")

    with monkeypatch.context() as broken:
        broken.setattr(FakeSession, "infer", die)
        with pytest.raises(BackendError, match="gone"):
            segmenter.predict(np.zeros((4, 4), np.uint8))
    segmenter.predict(np.zeros((4, 4), np.uint8))
    assert opened == ["ncnn cpu fp32"] * 2


def test_a_device_folder_of_ones_own(bundle: Bundle, opened: list[str], tmp_path: Path) -> None:
    write_ranking(tmp_path / "mine", bundle, (entry("ncnn", 0.1),))
    assert Segmenter.open(bundle, backend="auto", device_folder=tmp_path / "mine").info.backend == "ncnn"
    assert opened == ["ncnn cpu fp32"]
