"""The environment of a training process: a few names of its parent's, one computing thread, our packages.

Promise: nothing else reaches it. In particular no choice of instructions for OpenBLAS (``OPENBLAS_CORETYPE``) that
was made for other programs: by itself it takes the best that the processor has, and what its products round by the
engines check on the machine (``node.training.sums``).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_PACKAGES: Final = Path(__file__).resolve().parents[3]
_KEPT: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "CONSILIUM_TEST_FEDERATION")


def process_environment() -> dict[str, str]:
    """All environment variables of a training process that starts now."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return kept | {"PYTHONPATH": str(_PACKAGES), "OMP_NUM_THREADS": "1"}
