from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tumorseg_runtime.backends import open_session
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError, BundleError

ncnn = pytest.importorskip("ncnn")
Maker = Callable[..., Path]
Convert = Callable[[Path, str], None]


@pytest.fixture
def bundle(make_bundle: Maker, convert_bundle: Convert, tmp_path: Path) -> Bundle:
    root = make_bundle(tmp_path / "bundle")
    convert_bundle(root, "ncnn")
    return Bundle.open(root)


def images(count: int, contract: Contract) -> np.ndarray:
    shape = (count, contract.channels, contract.height, contract.width)
    return np.random.default_rng(count).standard_normal(shape, np.float32)


@pytest.mark.slow
def test_other_threads_run_while_it_computes(
    make_bundle: Maker, convert_bundle: Convert, tmp_path: Path
) -> None:
    contract = Contract(height=1024, width=1024)
    root = make_bundle(tmp_path / "bundle", contract)
    convert_bundle(root, "ncnn")
    session = open_session(Bundle.open(root), backend="ncnn", threads=1)
    image = images(1, contract)
    started, counts, stop = threading.Event(), [0], threading.Event()

    def count() -> None:
        while not stop.is_set():
            counts[0] += 1
            started.set()

    thread = threading.Thread(target=count)
    thread.start()
    try:
        started.wait()
        extractor = session._net.create_extractor()  # type: ignore[attr-defined]
        extractor.input("in0", ncnn.Mat(image[0]))
        before = counts[0]
        extractor.extract("out0")  # one call into ncnn: no bytecode runs in this thread meanwhile
        during = counts[0] - before
    finally:
        stop.set()
        thread.join()
    assert during > 100


def test_no_option_leaves_fp32(bundle: Bundle) -> None:
    session = open_session(bundle, backend="ncnn", threads=3)
    options = session._net.opt  # type: ignore[attr-defined]
    reduced = [name for name in dir(options) if name.startswith(("use_fp16", "use_bf16", "use_int8"))]
    assert len(reduced) >= 5
    assert not any(getattr(options, name) for name in (*reduced, "use_vulkan_compute"))
    assert options.num_threads == 3


def test_a_bundle_without_the_artefact_says_what_it_has(small_bundle: Path) -> None:
    with pytest.raises(BundleError, match="has no fp32 ncnn artefact, it has onnx fp32"):
        open_session(Bundle.open(small_bundle), backend="ncnn")


def test_a_network_of_another_contract_is_refused(
    make_bundle: Maker, convert_bundle: Convert, tmp_path: Path, edit_index: Callable[..., None]
) -> None:
    root = make_bundle(tmp_path / "bundle")
    convert_bundle(root, "ncnn")
    edit_index(root, lambda index: index["contract"].update(classes=["core", "rest"]))
    with pytest.raises(
        BundleError, match=r"gives \(1, 64, 64\), expected one output 'out0' of \(2, 64, 64\)"
    ):
        open_session(Bundle.open(root), backend="ncnn")


@pytest.mark.fault
def test_a_broken_file_is_a_backend_error(bundle: Bundle, reseal: Callable[[Path], Bundle]) -> None:
    (bundle.root / "model.ncnn.param").write_text("7767517\n1 1\nNoSuchLayer x 0 1 in0\n")
    with pytest.raises(BackendError, match=r"cannot load model.ncnn.param and model.ncnn.bin"):
        open_session(reseal(bundle.root), backend="ncnn")
