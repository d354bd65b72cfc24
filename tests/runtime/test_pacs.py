"""examples/pacs.py: an image goes from a PACS to the node, its SEG object comes back, pixel by pixel.

The PACS is Orthanc (Debian: orthanc) where that is installed; else only pynetdicom's own server stands in.
"""

from __future__ import annotations

import io
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tumorseg_runtime import Segmenter, read_frames

pynetdicom = pytest.importorskip("pynetdicom", reason="pynetdicom is not installed (extra pacs)")
pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed (extra dicom)")
pytest.importorskip("highdicom", reason="highdicom is not installed (extra dicom-seg)")

pytestmark = [pytest.mark.slow, pytest.mark.process]
EXAMPLE = Path(__file__).parents[2] / "examples" / "pacs.py"
Array = npt.NDArray[Any]
SEG = "1.2.840.10008.5.1.4.1.1.66.4"
STUDY = {
    "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "Modality": "US", "PatientSex": "F",
    "StudyID": "7", "StudyDate": "20260102", "StudyTime": "030405", "SeriesNumber": 1, "InstanceNumber": 1,
    "PatientID": "P1", "PatientName": "Test", "PatientBirthDate": "", "AccessionNumber": "",
}  # fmt: skip


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def write(path: Path, frames: Array, sop_class: str) -> Any:
    """An ultrasound image of these frames, uint8 (F, H, W)."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    for name, value in STUDY.items():
        setattr(dataset, name, value)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    if len(frames) > 1:
        dataset.NumberOfFrames = len(frames)
    dataset.Rows, dataset.Columns = frames.shape[1:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = frames.tobytes() + b"\0" * (frames.size % 2)
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path, enforce_file_format=True)
    return dataset


def until(found: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 120) -> Any:
    """What `found` gives once it gives something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if result := found():
            return result
        time.sleep(0.2)
    pytest.fail(f"nothing came: exit status {process.poll()}")


def send(path: Path, port: int, aet: str, own: str = "SENDER") -> int | None:
    """The status of a C-STORE; None where there is no association."""
    caller = pynetdicom.AE(ae_title=own)
    dataset = pydicom.dcmread(path)
    caller.add_requested_context(dataset.SOPClassUID, pydicom.uid.ExplicitVRLittleEndian)
    association = caller.associate("127.0.0.1", port, ae_title=aet)
    if not association.is_established:
        return None
    status = association.send_c_store(dataset)
    association.release()
    return int(status.Status)


class StandIn:
    """pynetdicom's own server in place of a PACS; images go to the node directly."""

    aet, sender = "STANDIN", "SENDER"

    def __init__(self, folder: Path, port: int, node: int) -> None:
        self.node, self.objects = node, []
        entity = pynetdicom.AE(ae_title=self.aet)
        entity.add_supported_context(SEG)
        handlers = [(pynetdicom.evt.EVT_C_STORE, self.keep)]
        self.server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)

    def keep(self, event: Any) -> int:
        self.objects.append(event.encoded_dataset())
        return 0

    def route(self, path: Path) -> None:
        assert send(path, self.node, "TUMORSEG") == 0

    def found(self) -> list[bytes]:
        return list(self.objects)

    def close(self) -> None:
        self.server.shutdown()


class Orthanc:
    """Orthanc with a folder of its own; images are stored in it, and it sends them on."""

    aet = sender = "ORTHANC"

    def __init__(self, folder: Path, port: int, node: int) -> None:
        self.port, self.http = port, free_port()
        settings = {
            "StorageDirectory": str(folder / "orthanc"), "IndexDirectory": str(folder / "orthanc"),
            "DicomAet": self.aet, "DicomPort": port, "HttpPort": self.http, "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False, "Plugins": [],
            "DicomModalities": {"node": ["TUMORSEG", "127.0.0.1", node]},
        }  # fmt: skip
        (folder / "orthanc.json").write_text(json.dumps(settings))
        with (folder / "orthanc.log").open("w") as log:
            command = ["Orthanc", str(folder / "orthanc.json")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, text=True)
        until(self.alive, self.process)

    def alive(self) -> bool:
        try:
            return bool(self.ask("/system"))
        except OSError:
            return False

    def ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", data)
        with urllib.request.urlopen(request, timeout=60) as answer:
            content = answer.read()
        return content if path.endswith("/file") else json.loads(content)

    def instances(self, modality: str) -> list[str]:
        query = {"Level": "Instance", "Query": {"Modality": modality}}
        return [str(one) for one in self.ask("/tools/find", query)]

    def route(self, path: Path) -> None:
        assert send(path, self.port, self.aet) == 0
        self.ask("/modalities/node/store", self.instances("US"))

    def found(self) -> list[bytes]:
        return [self.ask(f"/instances/{one}/file") for one in self.instances("SEG")]

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(params=[Orthanc, StandIn])
def pacs(request: pytest.FixtureRequest, tmp_path: Path, small_bundle: Path) -> Iterator[tuple[Any, Any]]:
    """A PACS, and the node beside it."""
    if request.param is Orthanc and not shutil.which("Orthanc"):
        pytest.skip("Orthanc is not installed (Debian: apt-get install orthanc)")
    port, node = free_port(), free_port()
    opened = request.param(tmp_path, port, node)
    command = [
        sys.executable, str(EXAMPLE), str(small_bundle), "--listen", f"127.0.0.1:{node}",
        "--back", f"127.0.0.1:{port}/{opened.aet}", "--from", opened.sender,
    ]  # fmt: skip
    with (tmp_path / "node.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True)
    try:
        until(lambda: "listens at" in (tmp_path / "node.log").read_text(), process)
        yield opened, process
    finally:
        process.terminate()
        assert process.wait(30) == 0
        opened.close()


@pytest.mark.parametrize("frames", [1, 3])
def test_the_object_that_comes_back_holds_the_masks(
    frames: int, pacs: Any, small_bundle: Path, scene: Callable[..., Array], tmp_path: Path
) -> None:
    opened, process = pacs
    path = tmp_path / "image.dcm"
    kind = f"1.2.840.10008.5.1.4.1.1.{'6.1' if frames == 1 else '3.1'}"
    image = write(path, np.stack([scene(45, 53, seed=seed) for seed in range(frames)]), kind)
    opened.route(path)
    (data,) = until(opened.found, process)
    made = pydicom.dcmread(io.BytesIO(data))
    with Segmenter.open(small_bundle) as segmenter:
        masks = np.stack([segmenter.predict(frame).mask for frame in read_frames(path)])
    assert 0 < masks.sum() < masks.size
    np.testing.assert_array_equal(made.pixel_array.reshape(masks.shape), masks)
    assert made.StudyInstanceUID == image.StudyInstanceUID
    referenced = made.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0]
    assert referenced.ReferencedSOPInstanceUID == image.SOPInstanceUID
    until(lambda: (tmp_path / "node.log").read_text().endswith(f"{image.SOPInstanceUID}: sent\n"), process)


@pytest.mark.parametrize("pacs", [StandIn], indirect=True)
def test_what_cannot_be_segmented_is_one_line_and_the_node_goes_on(
    pacs: Any, scene: Callable[..., Array], tmp_path: Path
) -> None:
    opened, process = pacs
    path, log = tmp_path / "image.dcm", tmp_path / "node.log"
    damaged = write(path, scene(40, 50)[None], "1.2.840.10008.5.1.4.1.1.6.1")
    damaged.Rows = 90
    damaged.save_as(path, enforce_file_format=True)
    assert send(path, opened.node, "TUMORSEG", own="STRANGER") is None
    opened.route(path)
    until(lambda: "not segmented: " in log.read_text(), process)
    write(path, scene(40, 50)[None], "1.2.840.10008.5.1.4.1.1.6.1")
    opened.route(path)
    until(opened.found, process)
    until(lambda: log.read_text().endswith(": sent\n"), process)
    assert len(log.read_text().splitlines()) == 3
