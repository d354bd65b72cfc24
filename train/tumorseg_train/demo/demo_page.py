"""The demo's page: the verdict, the checks, each phantom with mask and truth, the refusals, what is next."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from tumorseg_train.demo.demo import Demo
from tumorseg_train.report.case_view import page_case
from tumorseg_train.report.page import PASSED, Verdict, badge, bullets, code, page, paragraph, table

TRAINED_ON = {  # `phantoms` of a bundle's training
    True: "The network was trained on phantoms, too: the figures say nothing about patients.",
    False: "The network was trained on images of patients and has never seen a phantom, so it may be wrong "
    "here: the figures say nothing about patients.",
    None: "What the network was trained on is not known: the figures say nothing about patients.",
}


def demo_page(demo: Demo, next_steps: Sequence[tuple[str, str]]) -> str:
    """The whole page. next_steps: (what for, command) pairs."""
    trained = TRAINED_ON[demo.bundle.training.get("phantoms")]
    cases = [
        page_case(f"{case.name[0].upper()}{case.name[1:]}", case.figures, case.pixels, case.truth, case.mask)
        for case in demo.cases
    ]
    return page(
        "tumorseg demo",
        Verdict(PASSED, f"{demo.verdict}."),
        _checks(demo),
        cases=cases,
        folded=[
            ("Next: my images, my checkpoint, my CI", bullets([
                Markup("{}: {}").format(what, code(command)) for what, command in next_steps
            ])),
            ("The bundle", _bundle(demo)),
        ],
        lead=f"The images are phantoms, drawn by a program, with masks that are exact. {trained}",
    )  # fmt: skip


def _checks(demo: Demo) -> Markup:
    """What was verified, and that each copy that was broken on purpose was refused."""
    rows = [
        (f"{check.backend} {check.device} {check.precision}", badge(check.status), check.detail)
        for check in demo.verification.checks
    ]
    rows += [
        (f"broken copy: {refusal.what}", badge("refused"), f"{refusal.guard}: {refusal.message}")
        for refusal in demo.refusals
    ]
    return table(("check", "verdict", "figures or reason"), rows, label="Checks", cards=True)


def _bundle(demo: Demo) -> Markup:
    bundle = demo.bundle
    return paragraph(
        f"{bundle.name}, sealed as {bundle.digest()[:16]}; every file is as it was sealed. "
        f"{bundle.root.name}/MODEL_CARD.md says what it was trained on and what it is not for. "
        "The broken copies of the table are refused before they serve, as they must be."
    )
