"""Whoever goes on without a hospital's copy is told which one it is, and what may come of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coordinator.service import Coordinator
from coordinator.settings import GENESIS, JSON, KEYRING, load_settings
from ledger.entries.entry import parse_leaf
from ledger.entries.operations.log import TimeNoted
from ledger.errors import LedgerError
from ledger.formats.key_file import save_keyring
from tests.consilium.conftest import Run
from tests.federation import COORDINATOR, HOSPITALS, Federation, node_of
from tests.patience import PATIENCE_S

NODES = tuple(map(node_of, HOSPITALS))
NOTED = TimeNoted(type="time.noted")


def test_who_leaves_nodes_out_is_told_their_names_and_the_fork_before_the_coordinator_runs(
    tmp_path: Path, run: Run
) -> None:
    """And rightly: a node that was left out had seen one entry more than the copy that was brought."""
    federation = Federation.found()
    federation.say(COORDINATOR, NOTED)
    short = Federation(rings=federation.rings)
    for leaf in federation.leaves[:-1]:
        short.take(parse_leaf(leaf))
    short.persist(tmp_path / "basel").close()
    hub = tmp_path / "hub"
    hub.mkdir()
    (tmp_path / "passphrase").write_text("correct horse\n")
    save_keyring(
        hub / KEYRING, federation.rings[COORDINATOR], b"correct horse", strength="interactive"
    )
    (hub / GENESIS).write_bytes(federation.leaves[0])
    (hub / JSON).write_text(json.dumps({"federation": federation.id}))
    brought = ("--from", f"{NODES[0]}={tmp_path / 'basel'}")
    without = [part for node in NODES[1:] for part in ("--without", node)]
    key = ("--passphrase-file", tmp_path / "passphrase")
    refused = run("coordinator", "refill", "--home", hub, *brought, *without[:4], *key)
    assert refused.code != 0
    assert f"{NODES[3]} did not show what they hold, which may be more" in refused.err
    said = run("coordinator", "refill", "--home", hub, "--json", *brought, *without, *key)
    assert said.code == 0, said.err
    assert f"warning: {', '.join(NODES[1:])} showed nothing and will not be asked" in said.err
    assert f"over more than {short.log.size} entries" in said.err
    assert json.loads(said.out)["warning"] in said.err
    with Coordinator(load_settings(hub), federation.rings[COORDINATOR]) as running:
        running.sequencer.say(NOTED).result(PATIENCE_S)
        with pytest.raises(LedgerError):  # the hospital that was left out shows what it holds
            running.sequencer.examine(federation.checkpoint()).result(PATIENCE_S)
        assert running.sequencer.view.stopped is not None, "what was warned of"
