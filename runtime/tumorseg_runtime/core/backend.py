"""What is known of a backend without importing it: one record, from which every other table follows."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.session import LOGITS

_ORDINAL = re.compile(r"(\w+)(?::(\d{1,2}))?")
DEVICE_LABELS = {"cpu": "CPU", "cuda": "CUDA", "tensorrt": "TensorRT", "gpu": "GPU", "npu": "NPU"}


@dataclasses.dataclass(frozen=True)
class BackendSpec:
    """One backend, or one variant of it: what it opens, where it runs, what must be installed.

    name: as `--backend` takes it.
    module: imported when it is needed. It has `open_session(spec, bundle, device, precision, threads) ->
        Session`, with `device_folder` where `device_folder` is True, and `why_unavailable(device)`, which is
        asked first.
    formats: of the bundle's artefacts that it opens; of several it takes the first that is there. Empty where
        it opens only what was built for this device.
    devices: device -> extra of tumorseg that brings it; None where none does, but only another machine.
    precisions: of the artefacts that `tumorseg export` and `tumorseg build` make for it.
    label: for people; {precision} and {device} are filled in.
    wheels: distributions that bring the package it imports, which is named as the first of them. They
        exclude each other. Empty where a device's own software brings the package.
    output: what its sessions give, LOGITS or MASKS.
    device_folder: True where it also opens engines that were built for this device.
    keeps_engines: devices for which it keeps in the device folder what it builds at the first opening.
    options: what makes the variant; the module reads them.
    """

    name: str
    module: str
    formats: tuple[str, ...]
    devices: Mapping[str, str | None]
    precisions: tuple[str, ...]
    label: str
    wheels: tuple[str, ...] = ()
    output: str = LOGITS
    device_folder: bool = False
    keeps_engines: tuple[str, ...] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def label_of(self, device: str, precision: str) -> str:
        """The label of one artefact on one device."""
        kind, ordinal = split_device(device)
        name = DEVICE_LABELS[kind] + (f" {ordinal}" if ":" in device else "")
        return self.label.format(device=name, precision=precision.upper())


def split_device(device: str) -> tuple[str, int]:
    """'cuda:1' -> ('cuda', 1), 'cuda' -> ('cuda', 0): kind, and number among those that CUDA_VISIBLE_DEVICES
    leaves; raises InputError for another form."""
    found = _ORDINAL.fullmatch(device)
    if found is None:
        raise InputError(
            f"device is '{device}', expected a name, with a number where there are several: cuda:1"
        )
    return found[1], int(found[2] or 0)
