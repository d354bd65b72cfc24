"""`tumorseg serve-repository` under a real tritonserver: HTTP and gRPC, many clients, and what goes wrong.

Runs where tritonclient and nvidia-pytriton are installed: `make scale`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from tumorseg_runtime import Segmenter
from tumorseg_runtime.cli.serve_repository import serve_repository

if not all(map(importlib.util.find_spec, ("pytriton", "tritonclient"))):
    pytest.skip("no environment with Triton: make scale", allow_module_level=True)
pytestmark = [
    pytest.mark.slow, pytest.mark.process, pytest.mark.fault, pytest.mark.filterwarnings("ignore")
]  # fmt: skip
CLIENTS, QUEUE = 8, 24


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, shipped: Path) -> Path:
    out = tmp_path_factory.mktemp("triton") / "repository"
    arguments = [str(shipped), "--out", str(out), "--precision", "fp16", "--threads", "1"]
    done = CliRunner().invoke(
        serve_repository, [*arguments, "--instances", "2", "--queue", str(QUEUE), "--json"]
    )
    assert done.exit_code == 0, done.output
    return out


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from scale.triton_server import serving

    with serving(repository, tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.fixture(scope="module")
def expected(shipped: Path, archive: Path) -> dict[Path, np.ndarray]:
    """Masks of the runtime itself, uint8 (K, H, W)."""
    paths = sorted(archive.glob("b/*.png"))[:8]
    with Segmenter.open(shipped, precision="fp16", threads=1) as segmenter:
        return {path: segmenter.predict(path).masks.astype(np.uint8) * np.uint8(255) for path in paths}


def client_of(server: Any, kind: str) -> tuple[Any, Any]:
    import tritonclient.grpc
    import tritonclient.http

    module = tritonclient.http if kind == "http" else tritonclient.grpc
    more = {"connection_timeout": 120, "network_timeout": 120} if kind == "http" else {}
    return module, module.InferenceServerClient(server.http if kind == "http" else server.grpc, **more)


def ask(module: Any, client: Any, data: bytes | np.ndarray, *outputs: str) -> Any:
    if isinstance(data, bytes):
        one = module.InferInput("IMAGE", [1, 1], "BYTES")
        one.set_data_from_numpy(np.array([[data]], np.object_))
    else:
        one = module.InferInput("PIXELS", [1, *data.shape], "UINT8")
        one.set_data_from_numpy(data[None])
    wanted = [module.InferRequestedOutput(name) for name in outputs or ("MASK",)]
    return client.infer("tumorseg", [one], outputs=wanted)


def many(server: Any, paths: list[Path], kind: str, *, tries: int = 1) -> tuple[dict[int, Any], list[str]]:
    """Answers of all requests by place, sent by CLIENTS clients, and the errors that were met."""
    errors: list[str] = []

    def run(share: range) -> list[tuple[int, np.ndarray]]:
        module, client = client_of(server, kind)
        answers = []
        for place in share:
            for left in reversed(range(tries)):
                try:
                    answers.append(
                        (place, ask(module, client, paths[place].read_bytes()).as_numpy("MASK")[0])
                    )
                    break
                except Exception as error:  # noqa: BLE001  # whatever the client raises is counted
                    errors.append(str(error))
                    time.sleep(0.5 if left else 0)
        client.close()
        return answers

    shares = [range(start, len(paths), CLIENTS) for start in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        return {place: mask for part in pool.map(run, shares) for place, mask in part}, errors


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_eight_clients_get_the_runtimes_masks(server: Any, expected: dict[Path, Any], kind: str) -> None:
    paths = [*expected] * 2
    answers, errors = many(server, paths, kind)
    assert not errors
    assert len(answers) == len(paths)
    for place, mask in answers.items():
        assert np.array_equal(mask, expected[paths[place]])


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_pixels_pictures_lesions_and_margin(
    server: Any, shipped: Path, expected: dict[Path, Any], kind: str
) -> None:
    module, client = client_of(server, kind)
    path = next(iter(expected))
    with Segmenter.open(shipped, precision="fp16", threads=1) as segmenter:
        known = segmenter.predict(path)
    pixels = known.image if known.image.ndim == 3 else known.image[:, :, None]
    got = ask(module, client, np.ascontiguousarray(pixels), "MASK", "MASK_PNG", "LESIONS", "MARGIN")
    assert np.array_equal(got.as_numpy("MASK")[0], expected[path])
    png = cv2.imdecode(np.frombuffer(got.as_numpy("MASK_PNG")[0, 0], np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(png, expected[path][0])
    assert got.as_numpy("MARGIN")[0, 0] == np.float32(known.margin)
    said = json.loads(got.as_numpy("LESIONS")[0, 0])
    assert said["lesions"] == json.loads(json.dumps(known.to_dict()))["lesions"]


def test_a_bad_image_is_an_error_of_its_request_alone(
    server: Any, archive: Path, expected: dict[Path, Any]
) -> None:
    path, bad = next(iter(expected)), archive / "a" / "17.png"
    answers, errors = many(server, [path, bad, path, path], "http")
    assert sorted(answers) == [0, 2, 3]
    assert len(errors) == 1
    assert "damaged or cut off" in errors[0]
    module, client = client_of(server, "grpc")
    image, pixels = (
        module.InferInput("IMAGE", [1, 1], "BYTES"),
        module.InferInput("PIXELS", [1, 9, 9, 3], "UINT8"),
    )
    image.set_data_from_numpy(np.array([[path.read_bytes()]], np.object_))
    pixels.set_data_from_numpy(np.zeros((1, 9, 9, 3), np.uint8))
    with pytest.raises(module.InferenceServerException, match="expected one of them"):
        client.infer("tumorseg", [image, pixels])


def test_a_full_queue_refuses_at_once_and_loses_nothing(server: Any, expected: dict[Path, Any]) -> None:
    module, client = client_of(server, "grpc")
    path = next(iter(expected))
    one = module.InferInput("IMAGE", [1, 1], "BYTES")
    one.set_data_from_numpy(np.array([[path.read_bytes()]], np.object_))
    found: list[tuple[Any, Any]] = []
    count = 3 * QUEUE
    for _ in range(count):
        client.async_infer("tumorseg", [one], lambda result, error: found.append((result, error)))
    end = time.monotonic() + 200
    while len(found) < count and time.monotonic() < end:
        time.sleep(0.1)
    assert len(found) == count  # each has an answer or an error
    errors = [str(error) for _, error in found if error is not None]
    assert errors
    assert all("Exceeds maximum queue size" in error for error in errors)
    masks = [result.as_numpy("MASK")[0] for result, error in found if error is None]
    assert len(masks) >= QUEUE
    assert all(np.array_equal(mask, expected[path]) for mask in masks)


def test_a_killed_instance_is_replaced_and_nothing_is_lost(server: Any, expected: dict[Path, Any]) -> None:
    paths = [*expected] * 4
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(many, server, paths, "http", tries=60)
        time.sleep(1)
        before = server.stubs()
        os.kill(before[0], signal.SIGKILL)
        answers, errors = running.result()
    assert len(answers) == len(paths)
    assert all(np.array_equal(mask, expected[paths[place]]) for place, mask in answers.items())
    assert all("not healthy" in error or "Stub" in error for error in errors), errors
    end = time.monotonic() + 60
    while len(set(server.stubs()) - set(before)) < 2 and time.monotonic() < end:
        time.sleep(0.2)
    assert len(set(server.stubs()) - set(before)) == 2
    assert "1 of 2 instances have died: loading tumorseg again" in server.log.read_text()


def test_the_golden_client_passes_and_sees_a_wrong_mask(server: Any, repository: Path) -> None:
    for arguments in (["--http", server.http], ["--grpc", server.grpc]):
        command = [sys.executable, str(repository / "golden_client.py"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "3 of 3 golden images passed" in done.stdout
    path = sorted((repository / "golden").glob("*.npy"))[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:-9999] + bytes(255 - byte for byte in whole[-9999:]))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    path.write_bytes(whole)
    assert done.returncode == 1
    assert "WRONG" in done.stdout
    nobody = subprocess.run(
        [*command[:2], "--http", "127.0.0.1:1"], capture_output=True, text=True, check=False
    )
    assert nobody.returncode == 2
    assert len(nobody.stderr.splitlines()) == 1


def test_a_bundle_that_was_changed_does_not_become_ready(repository: Path, tmp_path: Path) -> None:
    import shutil

    from scale.triton_server import Server

    copy = tmp_path / "copy"
    shutil.copytree(repository, copy)
    (copy / "runtime" / "tumorseg" / "1" / "bundle" / "MODEL_CARD.md").write_text("another")
    server = Server(copy, tmp_path)
    try:
        with pytest.raises(RuntimeError, match="not as it was sealed"):
            server.wait()
    finally:
        server.stop()
