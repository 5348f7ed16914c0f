"""Who may read which blob: the table, line by line."""

from __future__ import annotations

import pytest

from coordinator.errors import AccessDenied
from coordinator.http.access import may_read
from coordinator.sequencing.history import History
from ledger.entries.operations.rounds import RoundAggregated, UpdateSubmitted
from ledger.formats.value import replace
from ledger.rules.log import Log
from tests.federation import COORDINATOR, RESEARCHER, Federation, node_of, steward_of

TWO = ("basel", "bern")


@pytest.fixture(scope="module")
def federation() -> Federation:
    """Two hospitals take part, one looks on; the model is released."""
    federation = Federation.found((*TWO, "chur"))
    federation.register_dataset("chur")
    federation.play(federation.start(TWO, rounds=2))
    return federation


def readers(federation: Federation, sha256: str, size: int | None = None) -> set[str]:
    """Handles who may read a blob when the log had that many entries."""
    history, log = History(), Log()
    for leaf in federation.leaves[:size]:
        history.observe(log.append(log.judge(leaf)))
    allowed = set()
    for handle in log.state.members:
        try:
            may_read(log.state, history, handle, sha256)
        except AccessDenied:
            continue
        allowed.add(handle)
    return allowed


def at(federation: Federation, name: str) -> int:
    """How many entries the log had right after the last operation of a type."""
    return max(i for i, e in enumerate(federation.entries()) if e.body.op.type == name) + 1


def test_documents_and_rounds_models_and_sums_are_for_every_member(federation: Federation) -> None:
    experiment = next(iter(federation.state.experiments.values()))
    everybody = set(federation.state.members)
    sums = [e.body.op for e in federation.entries() if isinstance(e.body.op, RoundAggregated)]
    schema = federation.state.datasets["basel-heart"].terms.schema_
    named = [experiment.spec, schema, experiment.plan.initial_model, sums[0].model]
    for ref in (*named, sums[0].aggregate):
        assert readers(federation, ref.sha256) == everybody


def test_an_update_is_for_its_node_the_coordinator_and_auditors(federation: Federation) -> None:
    update = next(
        e.body.op
        for e in federation.entries()
        if isinstance(e.body.op, UpdateSubmitted) and e.body.author == node_of("basel")
    )
    assert readers(federation, update.update.sha256) == {node_of("basel"), COORDINATOR}


def test_an_update_without_effect_is_no_more_open_than_another_and_bait_does_not_open_it() -> None:
    federation = Federation.found((*TWO, "chur"))
    experiment = federation.start(TWO, rounds=2)
    federation.reserve(experiment, "basel-heart")
    values = b"noisy sums of basel alone"
    ref = federation.put(values)
    federation.open_round(experiment)
    late = replace(federation.update(experiment, "basel-heart"), update=ref, attempt=7)
    federation.say(node_of("basel"), late, void="round_not_open")
    own = {node_of("basel"), COORDINATOR}
    assert readers(federation, ref.sha256) == own
    spec = federation.spec(["basel-heart", "bern-heart"])
    bait = replace(federation.proposal(spec), name="bait", spec=ref)
    federation.say(RESEARCHER, bait)
    assert readers(federation, ref.sha256) == own


def test_calling_a_document_an_update_does_not_hide_it() -> None:
    federation = Federation.found(TWO)
    experiment = federation.start(TWO, rounds=2)
    federation.reserve(experiment, "basel-heart")
    federation.open_round(experiment)
    spec = federation.experiment(experiment).spec
    op = replace(federation.update(experiment, "basel-heart"), update=spec, attempt=7)
    federation.say(node_of("basel"), op, void="round_not_open")
    assert readers(federation, spec.sha256) == set(federation.state.members)


@pytest.mark.parametrize("what", ["model", "spec"])
def test_an_update_that_counts_hides_no_document_or_model_either(what: str) -> None:
    federation = Federation.found((*TWO, "chur"))
    experiment = federation.start(TWO, rounds=2)
    for hospital in TWO:
        federation.reserve(experiment, f"{hospital}-heart")
    federation.open_round(experiment)
    now = federation.experiment(experiment)
    ref = now.model if what == "model" else now.spec
    op = replace(federation.update(experiment, "basel-heart"), update=ref)
    federation.say(node_of("basel"), op)
    assert readers(federation, ref.sha256) == set(federation.state.members)


def test_the_final_model_is_for_the_nodes_that_evaluate_it_until_it_is_released(
    federation: Federation,
) -> None:
    experiment = next(iter(federation.state.experiments.values()))
    model = experiment.model.sha256
    before = {node_of("basel"), node_of("bern"), COORDINATOR}
    assert readers(federation, model, at(federation, "experiment.completed")) == before
    assert readers(federation, model, at(federation, "round.opened")) == before
    assert readers(federation, model) == set(federation.state.members)


def test_taking_the_released_model_is_for_the_log(federation: Federation) -> None:
    experiment = next(iter(federation.state.experiments.values()))
    history, log = History(), Log()
    for leaf in federation.leaves:
        history.observe(log.append(log.judge(leaf)))
    permit = may_read(log.state, history, RESEARCHER, experiment.model.sha256)
    assert permit.log_as == (experiment.id,)
    assert may_read(log.state, history, RESEARCHER, experiment.spec.sha256).log_as == ()


def test_what_no_entry_names_is_for_nobody(federation: Federation) -> None:
    history = History()
    with pytest.raises(AccessDenied, match="no entry names it") as caught:
        may_read(federation.state, history, steward_of("basel"), "ab" * 32)
    assert caught.value.where == "blob abababababab"
