"""The picture of a training: loss and validation Dice by epoch."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from tumorseg_runtime.core.files import write_bytes


def draw_curves(rows: Sequence[dict[str, float]], path: Path) -> None:
    """Write a PNG from rows with epoch, train_loss, val_loss and val_dice."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # and not pyplot: no window system, no global state

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    for name in ("train_loss", "val_loss"):
        left.plot(epochs, [row[name] for row in rows], marker=".", label=name.replace("_", " "))
    left.set(xlabel="epoch", ylabel="loss")
    left.legend()
    right.plot(epochs, [row["val_dice"] for row in rows], marker=".")
    right.set(xlabel="epoch", ylabel="mean validation Dice", ylim=(0, 1))
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120, format="png")
    write_bytes(path, picture.getvalue())
