"""What a dataset declares of itself: `dataset.toml` beside its images, or the same as flags.

    [[dataset]]
    organ = "breast"              any name
    images = "frames"             folder, relative to this file; * stands for any one folder name
    masks = "frames"              may be the same folder
    pairing = "*=*_mask"          an image's name = its mask's (`tumorseg_train.layouts.name_patterns`)
    tumour = "#ff0000"            what in the masks is tumour, and
    soft_threshold = 128          from which value on (`tumorseg_train.layouts.masks`)
    label = "folder"              the class: a name, `folder` for the folder's, or a pattern such as "* (#)",
                                  of whose * it is the text; `normal` images have no tumour
    patient = "*_#"               the patient, in the same way
    neighbours = true             names are slice numbers: neighbours may be one patient

All but organ, images and masks may be left out. There may be several datasets.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from tumorseg_runtime.core.errors import InputError
from tumorseg_train.config.validation import STRICT, validated
from tumorseg_train.layouts.masks import MaskRule
from tumorseg_train.layouts.name_patterns import parse_pairing

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = "dataset.toml"
FOLDER = "folder"
TUMOUR = "tumour"  # the class where none is declared
MAX_BYTES = 2**20
_ORGAN = re.compile(r"[^\W_][\w .()-]{0,39}")


@dataclass(frozen=True, config=STRICT)
class Declaration:
    """One dataset; the fields are those of the file. Raises InputError."""

    organ: str
    images: str
    masks: str
    pairing: str = "*=*"
    tumour: str = ""
    soft_threshold: int = 0
    label: str = TUMOUR
    patient: str = ""
    neighbours: bool = False

    def __post_init__(self) -> None:
        if not _ORGAN.fullmatch(self.organ):
            raise InputError(
                f"organ is {self.organ!r}, expected a name of at most 40 letters, digits, spaces and -: "
                "correct it"
            )
        for name, folder in (("images", self.images), ("masks", self.masks)):
            if not folder or Path(folder).is_absolute() or ".." in Path(folder).parts or "\0" in folder:
                raise InputError(f"{name} is {folder!r}, expected a folder inside the dataset's: correct it")
        image, masks = parse_pairing(self.pairing)
        if self.images == self.masks and image in masks:
            raise InputError(
                f"images and masks lie in one folder ({self.images}), pairing is {self.pairing!r}, expected "
                "one that tells them apart, such as '*=*_mask': correct it"
            )
        for name, text in (("label", self.label), ("patient", self.patient)):
            if text.count("*") > 1 or ("#" in text and "*" not in text):
                raise InputError(
                    f"{name} is {text!r}, expected a name, {FOLDER}, or a pattern with one *: correct it"
                )
        _ = self.rule

    @property
    def rule(self) -> MaskRule:
        """How its masks are read; raises InputError."""
        return MaskRule(self.tumour, self.soft_threshold)

    def to_toml(self) -> str:
        """The table as `read_declarations` reads it, without what is left at its default."""
        plain = {name: field.default for name, field in self.__dataclass_fields__.items()}
        values = {name: value for name, value in vars(self).items() if name in plain}
        lines = [f"{name} = {_toml(value)}" for name, value in values.items() if value != plain[name]]
        return "\n".join(["[[dataset]]", *lines]) + "\n"


def read_declarations(path: Path) -> tuple[Declaration, ...]:
    """The datasets of a `dataset.toml`; raises InputError, a line for everything that is wrong."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: has more than {MAX_BYTES} bytes, expected a small file: correct it")
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}): check its rights") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not TOML ({error}): correct the file") from error
    tables = values.pop("dataset", None)
    if values or not isinstance(tables, list) or not tables or not all(isinstance(t, dict) for t in tables):
        raise InputError(
            f"{path}: expected tables [[dataset]] and nothing else, got {', '.join(values) or 'none'}: "
            "correct it, or make it by `tumorseg data import`"
        )
    return tuple(
        declare(table, path if len(tables) == 1 else f"{path}, dataset {number}")
        for number, table in enumerate(tables, 1)
    )


def declare(values: dict[str, Any], source: object) -> Declaration:
    """A declaration of these fields; raises InputError that names `source`."""
    try:
        return validated(Declaration, values, source)
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(f"{source}") else f"{source}: {text}") from error


def _toml(value: str | int | bool) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    escaped = "".join(
        f"\\u{ord(letter):04x}" if ord(letter) < 32 or ord(letter) == 127
        else f"\\{letter}" if letter in '"\\' else letter
        for letter in value
    )  # fmt: skip
    return f'"{escaped}"'
