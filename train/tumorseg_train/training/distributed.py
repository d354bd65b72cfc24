"""The processes of a distributed training: which one speaks, and whether they agree at the end."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from tumorseg_runtime.core.errors import TumorsegError

if TYPE_CHECKING:
    import torch

RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")


def is_first() -> bool:
    """True in the one process that writes and speaks: every rank that its environment names is 0."""
    return all(int(os.environ.get(name) or 0) == 0 for name in RANKS)


def weights_digest(model: torch.nn.Module) -> str:
    """SHA-256 of all parameters and buffers, in their order."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def check_equal(digests: list[str]) -> None:
    """Raises TumorsegError where processes hold different weights."""
    if different := [rank for rank, digest in enumerate(digests) if digest != digests[0]]:
        raise TumorsegError(
            f"process {different[0]} of {len(digests)} has other weights than process 0, expected the same: "
            "the processes saw different versions of the code, the data or the recipe; start them from one"
        )
