"""Objects of a store, by pyarrow: here a folder as a store, which pyarrow reads like any other."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.outputs.object_store import fetch, list_stored

if importlib.util.find_spec("pyarrow") is None:
    pytest.skip("no environment with Ray: make scale", allow_module_level=True)


def test_images_are_listed_fetched_and_missed(tmp_path: Path) -> None:
    root, said = tmp_path / "store", list[str]()
    for name in ("images/b.png", "images/a.dcm", "masks/b.png", "c_mask.png", "d.gif", "e.txt", "f.nii.gz"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    found = list_stored(f"file://{root}", said.append)
    assert [str(one) for one in found] == [
        f"file://{root}/{name}" for name in ("f.nii.gz", "images/a.dcm", "images/b.png")
    ]
    assert "1 .gif" in said[0]
    assert "skipped 2 masks" in said[1]
    local, stamp = fetch(found[2], tmp_path)
    assert local.read_bytes() == b"images/b.png"
    assert (local.name, stamp) == ("b.png", [*found[2].stamp])
    (root / "images/b.png").unlink()
    with pytest.raises(InputError, match="is no longer there"):
        fetch(found[2], tmp_path)
    with pytest.raises(InputError, match="holds no images"):
        list_stored(f"file://{root}/e.txt", said.append)
    with pytest.raises(InputError, match="cannot be listed"):
        list_stored("nowhere://x", said.append)
