import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tumorseg_export.references.golden_images import choose_items, make_golden, write_golden
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.read import read_image
from tumorseg_runtime.processing.preprocess import Preprocessor
from tumorseg_train.data.split import Item, Manifest
from tumorseg_train.networks.run import Run


def item(name: str, organ: str, tumour_px: int, part: str) -> Item:
    return Item(
        name, (), organ, "tumour", part, 8, 8, tumour_px, {name: f"{sum(map(ord, name)) * 7919 % 1000:064d}"}
    )


def manifest(items: list[Item]) -> Manifest:
    return Manifest(Path("unread"), 0, tuple(items))


def kinds(items: tuple[Item, ...]) -> list[tuple[str, bool]]:
    return [(one.organ, one.tumour_px > 0) for one in items]


def test_organs_with_and_without_tumour_take_turns() -> None:
    items = [item(f"brain{n}", "brain", 9, "test") for n in range(20)]
    items += [item(f"breast{n}", "breast", 9 * (n % 2), "test") for n in range(6)]
    chosen = choose_items(manifest(items), 6)
    groups = [("brain", True), ("breast", True), ("breast", False)]
    assert kinds(chosen) == groups * 2
    assert len({one.image for one in chosen}) == 6


def test_order_of_the_split_does_not_matter() -> None:
    items = [item(f"{organ}{n}", organ, n % 2, "test") for organ in ("brain", "breast") for n in range(9)]
    assert choose_items(manifest(items), 5) == choose_items(manifest(items[::-1]), 5)


def test_small_test_part_is_filled_up_from_validation() -> None:
    items = [item("a", "brain", 9, "test"), item("b", "brain", 9, "train")]
    items += [item(f"v{n}", "brain", 9, "val") for n in range(2)]
    parts = [one.part for one in choose_items(manifest(items), 4)]
    assert parts == ["test", "val", "val", "train"]


@pytest.mark.parametrize(
    ("count", "message"), [(2, "golden is 2, expected 3 or more"), (5, "holds only 4 images")]
)
def test_number_that_cannot_be_had_is_refused(count: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose_items(manifest([item(f"i{n}", "brain", 9, "val") for n in range(4)]), count)


def test_golden_images_hold_pytorchs_answer(tiny_run: Run, tmp_path: Path) -> None:
    data, model = tiny_run.manifest(), tiny_run.model()
    items = choose_items(data, 5)
    golden = make_golden(model, data, items, tiny_run.contract)
    assert [one.name for one in golden] == [
        "01-brain-tumour", "02-brain-none", "03-breast-tumour", "04-breast-none", "05-brain-tumour",
    ]  # fmt: skip
    write_golden(golden, tmp_path)
    preprocess = Preprocessor(tiny_run.contract)
    for one, context in zip(golden, items, strict=True):
        pixels = read_image(tmp_path / "golden" / f"{one.name}.png")
        assert np.array_equal(pixels, read_image(data.root / context.image))
        with np.load(tmp_path / "golden" / f"{one.name}.npz") as arrays:
            assert arrays["tensor"].tobytes() == preprocess(pixels).tobytes()
            with torch.inference_mode():
                logits = model(torch.from_numpy(arrays["tensor"])[None])[0].numpy()
            assert np.array_equal(arrays["logits"], logits)
    assert len(list((tmp_path / "golden").iterdir())) == 10


def test_image_that_changed_since_the_split_is_refused(
    tiny_run: Run, tiny_data: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_data, tmp_path / "data")
    data = Manifest(tmp_path / "data", 0, tiny_run.manifest().items)
    items = choose_items(data, 3)
    image = data.root / items[1].image
    image.write_bytes((data.root / items[0].image).read_bytes())
    with pytest.raises(InputError, match=r"\.png: has changed since the split was made"):
        make_golden(tiny_run.model(), data, items, tiny_run.contract)
    image.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        make_golden(tiny_run.model(), data, items, tiny_run.contract)
