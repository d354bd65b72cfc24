"""The demo's page: the verdict, each phantom with mask and truth side by side, the refusals, what is next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tumorseg_runtime.processing.overlay import draw_overlay
from tumorseg_train.demo.demo import BoolArray, Case, Demo, UInt8Array
from tumorseg_train.report.page import (
    Html,
    bullets,
    code,
    gallery,
    heading,
    image_uri,
    page,
    paragraph,
    picture,
    table,
)

LONGEST, QUALITY = 360, 82  # of a picture, in pixels and JPEG's percent
FOUND, DRAWN = "orange", "blue"  # the first two colours of overlays
TRAINED_ON = {  # `phantoms` of a bundle's training
    True: "The network was trained on phantoms, too: the figures say nothing about patients.",
    False: "The network was trained on images of patients and has never seen a phantom, so it may be wrong "
    "here: the figures say nothing about patients.",
    None: "What the network was trained on is not known: the figures say nothing about patients.",
}


def demo_page(demo: Demo, next_steps: Sequence[tuple[str, str]]) -> str:
    """The whole page. next_steps: (what for, command) pairs."""
    drawn = "".join(_case(case) for case in demo.cases)
    return page(
        "tumorseg demo",
        [
            ("Input, mask and truth", Html(paragraph(_about_images(demo)) + drawn)),
            ("Broken copies", _refusals(demo)),
            ("What was verified here", _verified(demo)),
            ("Next", bullets([Html(f"{what}: {code(command)}") for what, command in next_steps])),
        ],
        lead=f"Passed: {demo.verdict}.",
    )


def _about_images(demo: Demo) -> str:
    trained = TRAINED_ON[demo.bundle.training.get("phantoms")]
    return (
        "Phantoms are images drawn by a program, with masks that are exact. "
        f"{trained} In the last picture of each row, what the network alone calls a tumour is "
        f"{FOUND} and what it missed is {DRAWN}."
    )


def _case(case: Case) -> str:
    empty = np.zeros_like(case.mask)
    row = [
        picture(_jpeg(case.pixels), case.name, "input"),
        picture(_jpeg(_tinted(case.pixels, case.mask, empty)), f"mask found in: {case.name}", "mask found"),
        picture(_jpeg(_tinted(case.pixels, empty, case.truth)), f"truth of: {case.name}", "truth, as drawn"),
        picture(
            _jpeg(_tinted(case.pixels, case.mask & ~case.truth, case.truth & ~case.mask)),
            f"pixels decided wrongly in: {case.name}",
            f"wrong pixels: {int((case.mask ^ case.truth).sum())}",
        ),
    ]
    return heading(f"{case.name[0].upper()}{case.name[1:]}: {case.figures}") + gallery(row)


def _tinted(pixels: UInt8Array, found: BoolArray, drawn: BoolArray) -> UInt8Array:
    return draw_overlay(pixels, np.stack([found, drawn]))


def _jpeg(pixels: UInt8Array) -> str:
    return image_uri(pixels, longest=LONGEST, jpeg_quality=QUALITY)


def _refusals(demo: Demo) -> Html:
    rows = [(refusal.what, refusal.guard, refusal.message) for refusal in demo.refusals]
    return Html(
        paragraph("Copies of the bundle were broken on purpose; each must be refused before it serves.")
        + table(("what was broken", "refused by", "message"), rows, label="Broken copies and their refusals")
    )


def _verified(demo: Demo) -> Html:
    rows = [
        (f"{check.backend} {check.device} {check.precision}", check.status, check.detail)
        for check in demo.verification.checks
    ]
    bundle = demo.bundle
    return Html(
        paragraph(
            f"Bundle {bundle.name}, sealed as {bundle.digest()[:16]}; every file is as it was sealed. "
            f"{bundle.root.name}/MODEL_CARD.md says what it was trained on and what it is not for."
        )
        + table(("backend, device, precision", "state", "figures or reason"), rows, label="Verification")
    )
