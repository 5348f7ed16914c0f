"""A hospital leaves by one command: its datasets, keys and proposals end, and its copy stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from consilium.actions.federation import leaving
from consilium.actions.federation.leaving import plan_farewell
from ledger.entries.cards import DatasetCard, seal_card
from ledger.rules.state import replace
from tests.consilium.conftest import Live, Run
from tests.consilium.test_federation_on_loopback import join
from tests.federation import Federation, node_of, steward_of


class Cut(BaseException):
    pass


@pytest.mark.process
def test_a_hospital_leaves_through_an_interruption_and_keeps_its_copy(
    run: Run, live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = ("--passphrase-file", live.passphrase)
    basel, bern = tmp_path / "basel", tmp_path / "bern"
    join(run, live, "basel", basel)
    join(run, live, "bern", bern)
    run("federation", "policy", "--set", "endorsements=3", "--home", basel, *secret)
    asked = run("federation", "leave", "--home", basel, *secret)
    assert asked.code == 2
    assert "members whose keys end: basel-node, basel-steward" in asked.out
    assert "1 organisations with a steward remain" in asked.err
    assert "say --yes" in asked.err

    revoked = leaving._revoked

    def cut(handle: str) -> object:
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(leaving, "_revoked", cut)
        with pytest.raises(Cut):
            run("federation", "leave", "--yes", "--home", basel, *secret)
    assert revoked is leaving._revoked
    left = run("federation", "leave", "--yes", "--home", basel, *secret)
    assert left.code == 0, left.err
    assert "basel has left" in left.out
    assert "took back" not in left.out  # that was done the first time

    listed = json.loads(run("member", "list", "--json", "--home", bern, *secret).out)
    active = {row["handle"] for row in listed["members"] if not row["revoked"]}
    assert active & {"basel-node", "basel-steward"} == set()
    assert listed["changes"] == []
    again = run("federation", "leave", "--yes", "--home", basel, *secret)
    assert again.code == 2
    assert "it has left already" in again.err
    kept = run("audit", "verify", basel / "steward")
    assert kept.code == 0, kept.out
    assert "basel-steward" in run("ledger", "list", "--at", basel / "steward").out


def test_what_there_is_left_to_do_is_read_off_the_log() -> None:
    federation = Federation.found()
    experiment = federation.start(("basel", "bern"))
    federation.open_round(experiment)
    federation.reserve(experiment, "basel-heart")
    terms = federation.state.datasets["basel-heart"].terms
    card = seal_card(DatasetCard(title="Herz")).commitment
    federation.say(node_of("basel"), replace(terms, dataset="basel-eye", card=card))
    state = federation.state
    found = plan_farewell(state, steward_of("basel"), erase_cards=True)
    assert found.datasets == ("basel-eye", "basel-heart")
    assert found.cards == (card,)
    assert found.members == (node_of("basel"), steward_of("basel"))
    assert not found.changes
    assert "budget is reserved for first" in found.warnings[0]
    assert plan_farewell(state, steward_of("bern"), erase_cards=True).cards == ()
    gone = replace(state.members[node_of("basel")], revoked_at=1)
    later = replace(state, members=state.members.set(gone.handle, gone))
    assert plan_farewell(later, steward_of("basel"), erase_cards=False).members == (
        steward_of("basel"),
    )


@pytest.mark.parametrize(("hospitals", "warned"), [(3, True), (4, False)])
def test_who_is_needed_for_the_witness_quorum_is_told_so(hospitals: int, warned: bool) -> None:
    federation = Federation.found(("basel", "bern", "chur", "davos")[:hospitals])
    warnings = plan_farewell(federation.state, steward_of("basel"), erase_cards=False).warnings
    assert any("nothing becomes final" in warning for warning in warnings) is warned
    if warned:
        assert "3 of 3 hospitals must cosign" in warnings[-1]
        assert "consilium federation expel basel" in warnings[-1]
