# ruff: noqa: T201
"""A node beside a PACS: images come by C-STORE, a DICOM SEG object of each goes back by C-STORE.

    pip install 'tumorseg[cpu,pacs]'
    python examples/pacs.py BUNDLE --back HOST:PORT/AET [--listen 127.0.0.1:11112] [--aet TUMORSEG]

DICOM has no passwords: listen on this machine or a network that is trusted, and name who may send (--from).
What was taken and not yet answered when this ends is lost: send it again. For research; not a medical device.
"""

from __future__ import annotations

import argparse
import io
import queue
import signal
import sys
import tempfile
from pathlib import Path

import pydicom
from pynetdicom import AE, evt
from pynetdicom import sop_class as sop

from tumorseg_runtime import Bundle, Segmenter, TumorsegError, __version__, read_frames
from tumorseg_runtime.images.dicom.segmentation import Maker, SegmentationBuilder

TAKEN = [
    sop.UltrasoundImageStorage, sop.UltrasoundMultiFrameImageStorage, sop.MRImageStorage,
    sop.EnhancedMRImageStorage, sop.CTImageStorage, sop.EnhancedCTImageStorage,
    sop.SecondaryCaptureImageStorage, sop.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    sop.MultiFrameTrueColorSecondaryCaptureImageStorage,
]  # fmt: skip
SYNTAXES = [
    "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.5",
]  # fmt: skip
STORED, NO_ROOM, NOT_UNDERSTOOD = 0x0000, 0xA700, 0xC000
WAITING = 32  # images; further ones are refused, and their sender tries again
SECONDS = 30.0  # for one inference, and for the PACS to answer


def segmentation_of(path: Path, segmenter: Segmenter, maker: Maker) -> bytes:
    """The SEG object of an image file with any number of frames."""
    builder = None
    for frame in read_frames(path):
        builder = builder or SegmentationBuilder(path, frame, maker)
        builder.add(frame, segmenter.predict(frame, timeout_s=SECONDS).masks)
    assert builder is not None  # a file has a frame, or reading it has failed
    return builder.encode()


def send(data: bytes, own: str, host: str, port: int, aet: str) -> str:
    """Store an object at the PACS; what happened, in words."""
    caller = AE(ae_title=own)
    caller.acse_timeout = caller.dimse_timeout = caller.network_timeout = SECONDS
    caller.add_requested_context(sop.SegmentationStorage)
    association = caller.associate(host, port, ae_title=aet)
    if not association.is_established:
        return f"not sent: {aet} at {host}:{port} gives no association for SEG"
    try:
        status = association.send_c_store(pydicom.dcmread(io.BytesIO(data)))
    finally:
        association.release()
    code = status.get("Status")
    return "sent" if code == STORED else f"not stored: status {code if code is None else hex(code)}"


def serve(options: argparse.Namespace) -> None:
    bundle = Bundle.open(options.bundle)
    maker = Maker.of(bundle, __version__)
    maker.check()
    segmenter = Segmenter.open(bundle, backend="auto", self_test=True, timeout_s=120)
    inbox: queue.Queue[tuple[str, Path]] = queue.Queue(WAITING)
    with tempfile.TemporaryDirectory(prefix="tumorseg-pacs-") as folder:

        def take(event: evt.Event) -> int:
            path = Path(folder) / f"{id(event)}.dcm"
            try:
                path.write_bytes(event.encoded_dataset())
                inbox.put_nowait((str(event.request.AffectedSOPInstanceUID), path))
            except (OSError, queue.Full):
                path.unlink(missing_ok=True)
                return NO_ROOM
            except (AttributeError, ValueError):
                return NOT_UNDERSTOOD
            return STORED

        node = AE(ae_title=options.aet)
        node.require_calling_aet = options.sender
        for one in TAKEN:
            node.add_supported_context(one, SYNTAXES)
        server = node.start_server(options.listen, block=False, evt_handlers=[(evt.EVT_C_STORE, take)])
        print(f"{options.aet} listens at {options.listen[0]}:{options.listen[1]}", flush=True)
        try:
            while True:
                name, path = inbox.get()
                try:
                    said = send(segmentation_of(path, segmenter, maker), options.aet, *options.back)
                except TumorsegError as error:
                    said = f"not segmented: {str(error).removeprefix(f'{path}: ')}"
                print(f"{name}: {said}", flush=True)
                path.unlink()
        finally:
            server.shutdown()


def address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise argparse.ArgumentTypeError(f"got {text!r}, expected HOST:PORT")
    return host, int(port)


def node_of(text: str) -> tuple[str, int, str]:
    where, _, aet = text.partition("/")
    return *address(where), aet or "ANY-SCP"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="C-STORE in, DICOM SEG back.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--back", type=node_of, required=True, help="HOST:PORT/AET of the PACS")
    parser.add_argument("--listen", type=address, default=("127.0.0.1", 11112), help="HOST:PORT of this node")
    parser.add_argument("--aet", default="TUMORSEG", help="name of this node")
    parser.add_argument(
        "--from", dest="sender", action="append", default=[], help="who may send; any if left out"
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        serve(parser.parse_args())
    except (TumorsegError, OSError) as error:
        sys.exit(f"this node does not serve: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
