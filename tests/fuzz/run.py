"""Feed damaged files to every reader and count what comes of them.

python -m fuzz.run --inputs 1000 [--seed 0] [--only NAME]      (with tests/ in PYTHONPATH)
"""

from __future__ import annotations

import collections
import dataclasses
import random
import tempfile
import traceback
import warnings
from pathlib import Path

import click

from fuzz.reader import Reader, unfit_message
from fuzz.readers import readers
from tumorseg_runtime.core.errors import TumorsegError


@dataclasses.dataclass
class Outcome:
    """accepted, refused: numbers of inputs. faults: of what is neither, the input, and how it ended.

    shallow: of those refused, which did not get beyond the form of the file.
    """

    accepted: int = 0
    refused: int = 0
    shallow: int = 0
    faults: list[tuple[bytes, str]] = dataclasses.field(default_factory=list)


def fuzz(reader: Reader, inputs: int, seed: int) -> Outcome:
    """Damage the reader's good file `inputs` times, and put it back."""
    good, outcome = reader.path.read_bytes(), Outcome()
    draw = random.Random(f"{reader.name} {seed}")
    reader.read()
    for _ in range(inputs):
        data = reader.change(good, draw)
        reader.path.write_bytes(data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                reader.read()
        except TumorsegError as error:
            outcome.refused += 1
            text = str(error)
            outcome.shallow += "cannot be read" in text or "damaged" in text
            if why := unfit_message(text):
                outcome.faults.append((data, why))
        except Exception as error:  # noqa: BLE001  # this is what is looked for
            frames = traceback.extract_tb(error.__traceback__)
            ours = [f"{Path(f.filename).name}:{f.lineno}" for f in frames if "tumorseg" in f.filename]
            outcome.faults.append(
                (data, f"{type(error).__name__}: {str(error)[:200]!r} at {' '.join(ours[-3:])}")
            )
        else:
            outcome.accepted += 1
    reader.path.write_bytes(good)
    return outcome


@click.command()
@click.option("--inputs", default=1000, show_default=True, help="Damaged files for each reader.")
@click.option("--seed", default=0, show_default=True)
@click.option("--only", default="", help="Readers whose name has this.")
@click.option("--keep", type=click.Path(path_type=Path), help="Folder for inputs that ended in a fault.")
def main(inputs: int, seed: int, only: str, keep: Path | None) -> None:
    """Print a line per reader, and each kind of fault once."""
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        for reader in readers(Path(folder)):
            if only not in reader.name:
                continue
            outcome = fuzz(reader, inputs, seed)
            click.echo(
                f"{reader.name:24}{inputs:7} inputs {outcome.accepted:7} accepted {outcome.refused:7} "
                f"refused ({outcome.shallow} by form) {len(outcome.faults):5} faults"
            )
            faults += len(outcome.faults)
            kinds = collections.Counter(
                how.split(" at ")[-1] if " at " in how else how[:60] for _, how in outcome.faults
            )
            for kind, count in kinds.most_common(12):
                data, how = next((d, h) for d, h in outcome.faults if kind in h)
                click.echo(f"    {count} x {how}")
                if keep is not None:
                    keep.mkdir(exist_ok=True, parents=True)
                    (keep / f"{reader.name.replace('/', '_')}-{abs(hash(kind)) % 10000}").write_bytes(data)
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()
