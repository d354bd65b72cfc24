from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tumorseg_runtime.backends import ncnn as backend
from tumorseg_runtime.backends import open_session
from tumorseg_runtime.bundle import Bundle
from tumorseg_runtime.contract import Contract
from tumorseg_runtime.errors import BackendError, BundleError, InputError
from tumorseg_runtime.golden import replay

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


def test_the_golden_logits_and_what_it_runs_on(bundle: Bundle) -> None:
    session = open_session(bundle, backend="ncnn", threads=1)
    info = session.info
    assert (info.backend, info.device, info.precision) == ("ncnn", "cpu", "fp32")
    assert info.versions == {"ncnn": ncnn.__version__}
    report = replay(bundle, session, "model.ncnn.param", batch_size=3)
    assert report.passed, report.breaches


def test_a_batch_gives_what_single_images_give(bundle: Bundle) -> None:
    session = open_session(bundle, backend="ncnn")
    batch = images(5, bundle.contract)
    assert session.input.max_batch is None
    single = np.concatenate([session.infer(image[None]) for image in batch])
    assert np.array_equal(session.infer(batch).view(np.uint32), single.view(np.uint32))
    strided = np.ascontiguousarray(batch[..., ::-1])[..., ::-1]
    assert not strided.flags.c_contiguous
    assert np.array_equal(session.infer(strided), single)


def test_sixteen_threads_get_the_same_bits(bundle: Bundle) -> None:
    session = open_session(bundle, backend="ncnn", threads=1)
    batch = images(16, bundle.contract)
    expected = session.infer(batch)
    with ThreadPoolExecutor(16) as pool:
        for _ in range(5):
            got = np.concatenate(list(pool.map(lambda image: session.infer(image[None]), batch)))
            assert np.array_equal(got.view(np.uint32), expected.view(np.uint32))


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


def test_a_wrong_shape_never_reaches_it(bundle: Bundle) -> None:
    session = open_session(bundle, backend="ncnn")
    for batch in (np.zeros((1, 1, 64, 64), np.float32), np.zeros((1, 3, 64, 96), np.float32)):
        with pytest.raises(InputError, match=r"expected float32 \(N, 3, 64, 64\)"):
            session.infer(batch)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"device": "cuda"}, InputError, "device is 'cuda', expected cpu"),
        ({"precision": "fp16"}, BundleError, "has no fp16 ncnn artefact"),
    ],
)
def test_wrong_choices(bundle: Bundle, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        open_session(bundle, backend="ncnn", **options)


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


def test_a_broken_file_is_a_backend_error(bundle: Bundle) -> None:
    (bundle.root / "model.ncnn.param").write_text("7767517\n1 1\nNoSuchLayer x 0 1 in0\n")
    with pytest.raises(BackendError, match=r"cannot load model.ncnn.param and model.ncnn.bin"):
        open_session(bundle, backend="ncnn")


def test_a_missing_package_is_named_with_its_extra(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ncnn", None)
    assert backend.why_unavailable("cpu") == "ncnn is not installed"
    with pytest.raises(BackendError, match=r"ncnn is not installed.*install the extra \(ncnn\)"):
        open_session(bundle, backend="ncnn")


def test_no_connection_no_file(bundle: Bundle, run_guarded: Callable[..., list[str]]) -> None:
    code = """
import sys, numpy as np
from tumorseg_runtime.backends import open_session
from tumorseg_runtime.bundle import Bundle
session = open_session(Bundle.open(sys.argv[1]), backend="ncnn")
assert session.infer(np.ones((2, 3, 64, 64), np.float32)).shape == (2, 1, 64, 64)
"""
    assert run_guarded(code, bundle.root) == []
