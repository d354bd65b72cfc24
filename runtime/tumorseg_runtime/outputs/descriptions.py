"""What `tumorseg predict` says of an image and of a volume, in one line."""

from __future__ import annotations

from typing import Any

from tumorseg_runtime.inference.prediction import Prediction
from tumorseg_runtime.processing.lesions_3d import Lesion3D
from tumorseg_runtime.processing.postprocess import Lesion

LARGEST = 3  # lesions named in a line; predictions.json has all


def describe(prediction: Prediction) -> str:
    """One line for people."""
    height, width = prediction.masks.shape[1:]
    name = prediction.name
    if not prediction.lesions:
        return f"{name} ({width}x{height}): no lesion"
    largest = sorted(prediction.lesions, key=lambda lesion: -lesion.area_px)[:LARGEST]
    areas = ", ".join(f"{lesion.label} {_area(lesion)}" for lesion in largest)
    more = f", {len(prediction.lesions) - LARGEST} smaller" if len(prediction.lesions) > LARGEST else ""
    return f"{name} ({width}x{height}): {len(prediction.lesions)} lesion(s): {areas}{more}"


def _area(lesion: Lesion) -> str:
    if lesion.area_mm2 is None:
        return f"{lesion.area_px} px"
    return f"{lesion.area_px} px ({lesion.area_mm2:.1f} mm2)"


def describe_volume(line: dict[str, Any]) -> str:
    """One line for people, of a volume's line for the log."""
    head = f"{line['image']} ({'x'.join(map(str, line['voxels']))}): "
    if not line["lesion_count"]:
        return head + "no lesion"
    said = [_filled(Lesion3D(**lesion)) for lesion in line["lesions"][:LARGEST]]
    more = line["lesion_count"] - len(said)
    return f"{head}{line['lesion_count']} lesion(s): {', '.join(said)}" + (
        f", {more} smaller" if more else ""
    )


def describe_flag(line: dict[str, Any]) -> str | None:
    """What the input guard flags, of an image's or a volume's line for the log; None where it is nothing."""
    if flagged := line.get("slices_flagged"):
        return f"{line['image']}: {flagged} slices are unlike the training images"
    if (check := line.get("input_check")) and check["flagged"]:
        return f"{line['image']}: unlike the training images: {check['reason']}"
    return None


def _filled(lesion: Lesion3D) -> str:
    return f"{lesion.label} {lesion.voxels} voxels ({lesion.volume_mm3:.1f} mm3)"
