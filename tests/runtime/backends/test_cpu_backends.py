"""What each backend of a CPU but ONNX Runtime must do; what is special about one is in its own file."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fakes.golden import golden_report
from tumorseg_runtime.backends import BACKENDS, open_session, why_unavailable
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError, BundleError, InputError
from tumorseg_runtime.core.session import Session

PACKAGES = {"ncnn": "ncnn", "mnn": "MNN", "mnn-exact": "MNN", "openvino": "openvino"}  # by backend
DEVICES = {"ncnn": "cpu", "mnn": "cpu", "mnn-exact": "cpu", "openvino": "one of cpu, gpu, npu"}
SERVE = """
import sys, numpy as np
from tumorseg_runtime.backends import open_session
from tumorseg_runtime.bundle.bundle import Bundle
session = open_session(Bundle.open(sys.argv[1]), backend=sys.argv[2])
assert session.infer(np.ones((2, 3, 64, 64), np.float32)).shape == (2, 1, 64, 64)
"""


@pytest.fixture(scope="module", params=PACKAGES)
def backend(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if reason := why_unavailable(name, "cpu"):
        pytest.skip(reason)
    return name


@pytest.fixture(scope="module")
def bundle(
    backend: str,
    make_bundle: Callable[..., Path],
    convert_bundle: Callable[[Path, str], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Bundle:
    root = make_bundle(tmp_path_factory.mktemp(backend) / "bundle")
    convert_bundle(root, BACKENDS[backend].formats[-1])
    return Bundle.open(root)


@pytest.fixture(scope="module")
def session(backend: str, bundle: Bundle) -> Iterator[Session]:
    with contextlib.ExitStack() as stack:
        opened = open_session(bundle, backend=backend, threads=1)
        if isinstance(opened, contextlib.AbstractContextManager):
            stack.enter_context(opened)
        yield opened


def images(count: int, contract: Contract) -> np.ndarray:
    shape = (count, contract.channels, contract.height, contract.width)
    return np.random.default_rng(count).standard_normal(shape, np.float32)


def test_the_golden_logits_and_what_it_runs_on(backend: str, bundle: Bundle, session: Session) -> None:
    info = session.info
    assert (info.backend, info.device, info.precision) == (backend, "cpu", "fp32")
    assert info.versions[PACKAGES[backend]].count(".") >= 2
    report = golden_report(bundle, session, "the artefact", batch_size=3)
    assert report.passed, report.breaches


def test_a_batch_gives_what_single_images_give(bundle: Bundle, session: Session) -> None:
    batch = images(5, bundle.contract)
    assert session.input.max_batch is None
    single = np.concatenate([session.infer(image[None]) for image in batch])
    assert len({one.tobytes() for one in single}) == 5
    assert np.array_equal(session.infer(batch).view(np.uint32), single.view(np.uint32))
    strided = np.ascontiguousarray(batch[..., ::-1])[..., ::-1]
    assert not strided.flags.c_contiguous
    assert np.array_equal(session.infer(strided), single)


def test_sixteen_threads_get_the_same_bits(bundle: Bundle, session: Session) -> None:
    batch = images(16, bundle.contract)
    expected = session.infer(batch)
    with ThreadPoolExecutor(16) as pool:
        for _ in range(5):
            got = np.concatenate(list(pool.map(lambda image: session.infer(image[None]), batch)))
            assert np.array_equal(got.view(np.uint32), expected.view(np.uint32))


def test_a_wrong_shape_never_reaches_it(session: Session) -> None:
    for shape in ((1, 1, 64, 64), (1, 3, 64, 96)):
        with pytest.raises(InputError, match=r"expected float32 \(N, 3, 64, 64\)"):
            session.infer(np.zeros(shape, np.float32))


def test_wrong_choices(backend: str, bundle: Bundle) -> None:
    with pytest.raises(InputError, match=f"device is 'cuda', expected {DEVICES[backend]}"):
        open_session(bundle, backend=backend, device="cuda")
    with pytest.raises(BundleError, match=f"has no fp16 {BACKENDS[backend].formats[-1]} artefact"):
        open_session(bundle, backend=backend, precision="fp16")


def test_a_missing_package_is_named_with_its_extra(
    backend: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = PACKAGES[backend]
    monkeypatch.setitem(sys.modules, package, None)
    assert why_unavailable(backend, "cpu") == f"{package} is not installed"
    extra = rf"{package} is not installed.*install the extra \({package.lower()}\)"
    with pytest.raises(BackendError, match=extra):
        open_session(bundle, backend=backend)


@pytest.mark.process
def test_no_connection_no_file(backend: str, bundle: Bundle, run_guarded: Callable[..., list[str]]) -> None:
    assert run_guarded(SERVE, bundle.root, backend) == []
