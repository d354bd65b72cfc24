"""A device must watch its input by the guard of its bundle."""

from __future__ import annotations

import dataclasses

import pytest

from tumorseg_runtime.conformance.files import vectors
from tumorseg_runtime.conformance.guard_rule import refuse_other_guard
from tumorseg_runtime.conformance.network import conformance_bundle
from tumorseg_runtime.core.errors import ParityError
from tumorseg_runtime.processing.input_guard import FILE, InputGuard, read_guard

BUNDLE = conformance_bundle("rgb")


def guard() -> InputGuard:
    found = read_guard(BUNDLE)
    assert found is not None
    return found


def test_the_guard_of_the_bundle_serves() -> None:
    refuse_other_guard(BUNDLE, guard())
    without = {name: record for name, record in BUNDLE.files.items() if name != FILE}
    refuse_other_guard(BUNDLE.draft(files=without), None)


@pytest.mark.parametrize("other", [None, dataclasses.replace(guard(), most_colour=6.0)])
def test_another_or_none_is_refused(other: InputGuard | None) -> None:
    got = "none" if other is None else "another one"
    with pytest.raises(ParityError, match=rf"that serves is {got}, expected that of {FILE}: open the bundle"):
        refuse_other_guard(BUNDLE, other)


def test_conformance_files_lie_on_both_sides_of_the_limit_and_by_colour_alone() -> None:
    """Or a bug in one of these would show in no file."""
    checks = [guard().check(one.frames[0]) for one in vectors() if not one.dicom]
    assert {one.nearest for one in checks} == {kind.name for kind in guard().kinds}
    by_colour = ["colours differ" in one.reason for one in checks if one.reason]
    assert 0 < sum(by_colour) < len(by_colour) < len(checks)
