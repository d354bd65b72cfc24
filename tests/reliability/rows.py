"""The rows, in the order of the table."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Row:
    """title: what is done. expected: what must hold. run: module and function, of Settings and Tally."""

    title: str
    expected: str
    run: str


ROWS = {
    "tampered": Row(
        "files of a bundle changed, through every door", "refused in one line", "tampering:tampered"
    ),
    "index": Row("bits of the index turned", "refused with bundle.json.sha256", "tampering:index_bits"),
    "replaced": Row(
        "files replaced while a bundle is opened",
        "the sealed network serves, or refused",
        "tampering:replaced",
    ),
    "fuzzed": Row(
        "damaged files for every reader",
        "accepted or refused in one line; 20 % pass the form",
        "fuzzing:fuzzed",
    ),
    "power": Row(
        "power cuts after every call, all, none or some of what was not synced",
        "every store opens, old or new",
        "power:power_cuts",
    ),
    "disks": Row(
        "full, small, read-only disks and quotas",
        "one line, what served serves, no half file in the log",
        "disk:bad_disks",
    ),
    "vanishing": Row(
        "files removed while predict runs", "one line each, the next run is whole", "disk:vanishing"
    ),
    "limits": Row(
        "RLIMIT_AS and RLIMIT_NOFILE, every backend", "one line or the right masks", "memory:limited"
    ),
    "predictions": Row(
        "predictions of mixed sizes, every backend", "every mask right, no memory kept", "predictions:many"
    ),
    "worker": Row(
        "MNN's process killed and stopped", "one line, then the right masks again", "predictions:worker"
    ),
    "surroundings": Row(
        "clock, locale, umask, no HOME, one CPU, spawn and fork", "the same masks", "surroundings:surrounded"
    ),
    "kills": Row(
        "kill -9 in install, predict, build, train and export",
        "nothing half, the next run succeeds",
        "kills:killed",
    ),
    "outside": Row(
        "every command under strace", "no network, no write outside", "outside:no_network_no_write_outside"
    ),
    "patients": Row(
        "DICOM files full of a patient's data, half of them damaged",
        "none of it in any output",
        "outputs:patients",
    ),
    "pages": Row(
        "hostile names in pages and lines",
        "no script, no handler, nothing that a terminal obeys",
        "outputs:pages",
    ),
    "versions": Row(
        "the oldest and the newest packages that pyproject.toml allows",
        "every backend passes, the same masks",
        "environments:oldest_and_newest",
    ),
    "arm": Row(
        "the runtime on 64-bit Arm, under qemu-user",
        "the same bits as on x86-64, or counted",
        "arm:on_arm",
    ),
}
