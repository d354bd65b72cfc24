"""Damaged files for every reader of files from outside."""

from __future__ import annotations

import tempfile
from pathlib import Path

from fuzz.readers import readers
from fuzz.run import fuzz
from reliability.row import Settings, Tally

DEEP = 0.2  # of the inputs that must get beyond the form of the file
OF_ONE_FORM = ("public key", "signature")  # whose every change is one of form


def fuzzed(settings: Settings, tally: Tally) -> None:
    """Each reader's good file, changed; every input is accepted or refused in one line."""
    with tempfile.TemporaryDirectory() as folder:
        for reader in readers(Path(folder)):
            inputs = max(10, round(settings.count(60, 5000) * reader.share))
            outcome = fuzz(reader, inputs, settings.seed)
            tally.add("readers")
            tally.add("inputs", inputs)
            tally.add("accepted", outcome.accepted)
            tally.add("refused", outcome.refused)
            tally.add("refused by their form alone", outcome.shallow)
            for _, how in outcome.faults:
                tally.fault(f"{reader.name}: {how}")
            deep = 1 - outcome.shallow / inputs
            if reader.name not in OF_ONE_FORM:
                tally.demand(deep >= DEEP, f"{reader.name}: {deep:.0%} passed the form, expected {DEEP:.0%}")
