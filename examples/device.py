# ruff: noqa: T201
"""A device in 40 lines: opens a bundle, tests itself, judges every frame, reacts to a lesion.

    python examples/device.py BUNDLE FOLDER

Each file of FOLDER is a frame and waits (live: drop="oldest"). For research; not a medical device.
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
    for result in segmenter.stream(probe(folder), max_pending=2, drop="block", timeout_s=30):
        found = result.prediction.lesions if result.prediction else ()
        lesions = [one for one in found if one.area_px >= SUSPICIOUS_PX]
        state = f"LESION at {lesions[0].box}" if lesions else "nothing found"
        state = f"not judged: {result.error}" if result.error else state
        print(f"{result.name}: {state} ({1000 * result.seconds['total']:.0f} ms)")


if __name__ == "__main__":
    if len(sys.argv) != 3 or not Path(sys.argv[2]).is_dir():
        sys.exit(f"got {sys.argv[1:]}, expected a bundle and a folder of frames: device.py BUNDLE FOLDER")
    try:
        main(*sys.argv[1:])
    except TumorsegError as error:
        sys.exit(f"this device does not serve: {error}")
