"""Memory that is asked for once and written over by every step.

What a step asks the system for anew comes cleared, page by page, which takes longer than most steps
compute: glibc gives large blocks back when they are freed, in some steps and not in others.

Promise: a room keeps its memory as long as its owner. Not promised: its content; and who takes a name again
writes over what the name gave before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch


class Rooms:
    """Memory by names."""

    def __init__(self) -> None:
        self._rooms: dict[str, torch.Tensor] = {}

    def take(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Give a tensor of any content, in the memory of this name."""
        size = math.prod(shape)
        found = self._rooms.get(name)
        if found is None or len(found) < size or found.dtype != dtype:
            found = self._rooms[name] = torch.empty(size, dtype=dtype)
        return found[:size].view(*shape)
