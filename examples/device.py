# ruff: noqa: T201
"""A device in 40 lines: opens a bundle, tests itself, judges frames as they come, reacts to a lesion.

    python examples/device.py BUNDLE FOLDER

FOLDER stands for the probe: each image or DICOM file in it is a frame. For research; not a medical device.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from tumorseg_runtime import Segmenter, TumorsegError

SUSPICIOUS_PX = 50  # lesions below this are not worth an alarm here


def probe(folder: str) -> Iterator[Path]:
    """Frames in the order of their names; a camera would yield uint8 arrays (H, W) or (H, W, 3) RGB."""
    yield from sorted(path for path in Path(folder).iterdir() if path.is_file())


def main(bundle: str, folder: str) -> None:
    segmenter = Segmenter.open(bundle, backend="auto", self_test=True, timeout_s=120)
    print(f"{segmenter.info.backend} {segmenter.info.versions}, self-test passed")
    for result in segmenter.stream(probe(folder), max_pending=2, drop="oldest", timeout_s=30):
        if result.prediction is None:
            print(f"{result.name}: not judged: {result.error}")
            continue
        lesions = [one for one in result.prediction.lesions if one.area_px >= SUSPICIOUS_PX]
        state = f"LESION at {lesions[0].box}" if lesions else "nothing found"
        delay = f"{1000 * result.seconds['total']:.0f} ms, {result.dropped} dropped"
        print(f"{result.name}: {state} ({delay})")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except TumorsegError as error:
        sys.exit(f"this device does not serve: {error}")
