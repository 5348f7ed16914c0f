"""Two hospitals and an experiment, seen from the private register of one."""

from __future__ import annotations

from pathlib import Path

from ledger.copies.blobs import blob_ref
from ledger.entries.operations.experiments import ExperimentStopped
from tests.federation import RESEARCHER, Federation
from tests.node.hospital import Hospital

MINE = "basel-heart"


class Scene:
    """Two hospitals, one experiment approved by both, a round open, and basel's own register."""

    def __init__(self, directory: Path, **spec: object) -> None:
        self.federation = Federation.found(("basel", "bern"))
        self.experiment = self.federation.start(**spec)
        self.basel = Hospital(self.federation, "basel", directory)
        self.basel.own(MINE)

    def open_round(self) -> None:
        self.federation.open_round(self.experiment)

    def reserved(self) -> None:
        self.open_round()
        self.basel.checked(self.experiment)
        self.basel.reserve(self.experiment, MINE)

    def trained(self, number: int = 1) -> None:
        self.basel.intend(self.experiment, MINE, "train", number, 1)
        self.basel.register.outbox.store(self.experiment, MINE, number, blob_ref(b"noise"))

    def stop(self) -> None:
        op = ExperimentStopped(
            type="experiment.stopped", experiment=self.experiment, reason="researcher"
        )
        self.federation.say(RESEARCHER, op)
