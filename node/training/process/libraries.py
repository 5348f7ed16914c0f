"""What a process that trains tells its numeric libraries, before it loads them.

OpenBLAS, which multiplies for numpy, chooses its instructions by the processor's name. The one in numpy
2.5 does not know AMD's Zen 5, and takes half of what it can do. Its products for Intel's Skylake are made of
instructions that the processor says it has, and so may be asked for by name.

Promise: nothing is asked for that the processor does not say it has; whatever was chosen already stands.
What a product rounds by, the engines check on the machine (``node.training.sums``), whoever computes it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_PROCESSORS: Final = Path("/proc/cpuinfo")
_MAKER: Final = "AuthenticAMD"
_NEEDED: Final = frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})
"""What OpenBLAS' products for Skylake are compiled for."""
_CHOICE: Final = "OPENBLAS_CORETYPE"


def library_environment() -> dict[str, str]:
    """Environment variables for a process of one computing thread that starts now."""
    found = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    if _CHOICE in os.environ:
        found[_CHOICE] = os.environ[_CHOICE]
    elif _has_wide_vectors(_described()):
        found[_CHOICE] = "SkylakeX"
    return found


def _described() -> str:
    """What the system says of its first processor; nothing where it is no Linux."""
    try:
        return _PROCESSORS.read_text(encoding="ascii", errors="replace").partition("\n\n")[0]
    except OSError:
        return ""


def _has_wide_vectors(described: str) -> bool:
    fields = {
        name.strip(): value.strip()
        for name, _, value in (line.partition(":") for line in described.splitlines())
    }
    return fields.get("vendor_id") == _MAKER and set(fields.get("flags", "").split()) >= _NEEDED
