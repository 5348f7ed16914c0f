"""The front door: the command line, settings, the researcher's client, rehearsal and the demo.

Knows every other package; none of them knows it. For notebooks: ``Client`` and ``Experiment``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from consilium.client import Client
    from consilium.experiment import Experiment

__all__ = ["Client", "Experiment"]


def __getattr__(name: str) -> object:
    # Imported on first use, so that `consilium --help` need not load the ledger.
    if name == "Client":
        from consilium.client import Client

        return Client
    if name == "Experiment":
        from consilium.experiment import Experiment

        return Experiment
    raise AttributeError(f"module 'consilium' has no attribute {name!r}")
