"""A small federation that ran one experiment, on disk and as a bundle; made once."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest

from ledger.copies.blobs import BlobStore
from ledger.copies.bundle import export_bundle
from ledger.entries.operations.values import BlobRef
from ledger.experiment.privacy_spec import Baseline, Privacy
from tests.federation import Federation


@dataclass(frozen=True)
class World:
    """A federation and where its copies lie; a test copies what it changes.

    Attributes:
        home: ``ledger.db`` and ``blobs/``.
        bundle: the same in one file.
    """

    federation: Federation
    experiment: str
    home: Path
    bundle: Path

    def copy_home(self, to: Path) -> Path:
        shutil.copytree(self.home, to)
        return to


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    federation = Federation.found()
    privacy = Privacy(epsilon=Decimal(2), baseline=Baseline(rounds=5))
    experiment = federation.start(privacy=privacy)
    federation.play(experiment)
    return write(federation, experiment, tmp_path_factory.mktemp("world"))


def write(federation: Federation, experiment: str, directory: Path) -> World:
    home, bundle = directory / "home", directory / "x.consilium"
    store = federation.persist(home)
    refs = [BlobRef(sha256=name, bytes=len(data)) for name, data in federation.blobs.items()]
    export_bundle(store, BlobStore(home / "blobs"), bundle, refs)
    store.close()
    return World(federation, experiment, home, bundle)
