"""The images beside the golden ones, on which FP16 is fitted and every artefact is proven."""

from __future__ import annotations

from collections.abc import Sequence

from tumorseg_export.references.golden_images import in_turn
from tumorseg_train.data.split import Item, Manifest

CALIBRATION = 8  # beside the golden images


def choose_calibration(manifest: Manifest, golden: Sequence[Item], count: int) -> tuple[Item, ...]:
    """At most `count` items of validation, then training, none of them golden; in turn of each organ with and
    without tumour. The test part is left alone: the network is adapted to these images."""
    taken = {item.files[item.image] for item in golden}
    chosen: list[Item] = []
    for part in ("val", "train"):
        chosen += [item for item in in_turn(manifest.part(part)) if item.files[item.image] not in taken]
    return tuple(chosen[:count])
