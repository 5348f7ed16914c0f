"""Sums and models from blobs: what counts, what does not, and the same bits after a restart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coordinator.rounds.aggregate import Aggregator
from coordinator.sequencing.history import History
from ledger.copies.blobs import BlobStore
from ledger.entries.operations.rounds import RoundAggregated
from ledger.errors import BlobMissing, LedgerError, PlanRefused
from ledger.experiment.plan.compilation import compile_plan
from ledger.experiment.plan.sites import sites_from
from ledger.experiment.tensors import decode_update
from ledger.formats.value import replace
from ledger.rules.experiments import site_of
from ledger.rules.log import Log
from tests.federation import RESEARCHER, Federation, node_of

THREE = ("basel", "bern", "chur")


@pytest.fixture
def federation() -> Federation:
    federation = Federation.found(THREE)
    federation.start(THREE, rounds=2)
    return federation


def experiment_of(federation: Federation) -> str:
    return next(iter(federation.state.experiments))


def aggregator(federation: Federation, directory: Path) -> Aggregator:
    """As after a start: the history from the log, the blobs from disk."""
    history, log = History(), Log()
    for leaf in federation.leaves:
        history.observe(log.append(log.judge(leaf)))
    store = BlobStore(directory / "blobs")
    for data in federation.blobs.values():
        store.put(data)
    return Aggregator(store, history)


def test_the_sum_and_the_model_are_those_that_anyone_computes(
    federation: Federation, tmp_path: Path
) -> None:
    experiment = experiment_of(federation)
    federation.open_round(experiment)
    for dataset in ("basel-heart", "bern-heart", "chur-heart"):
        federation.reserve(experiment, dataset)
        federation.submit(experiment, dataset)
    ours = aggregator(federation, tmp_path)
    now = federation.experiment(experiment)
    assert ours.fold(now) == ()
    op = ours.aggregate(federation.state, now)
    theirs = federation.aggregate(experiment).entry.body.op
    assert isinstance(theirs, RoundAggregated)
    assert op == theirs


def test_updates_are_folded_as_they_arrive_and_again_after_a_restart(
    federation: Federation, tmp_path: Path
) -> None:
    experiment = experiment_of(federation)
    federation.open_round(experiment)
    steady = aggregator(federation, tmp_path)
    for dataset in ("chur-heart", "basel-heart", "bern-heart"):
        federation.reserve(experiment, dataset)
        op = federation.update(experiment, dataset)
        steady._blobs.put(federation.blobs[op.update.sha256])
        federation.say(node_of(federation.state.datasets[dataset].organisation), op)
        assert steady.fold(federation.experiment(experiment)) == ()
    now = federation.experiment(experiment)
    restarted = aggregator(federation, tmp_path)
    restarted.fold(now)
    assert steady.aggregate(federation.state, now) == restarted.aggregate(federation.state, now)


@pytest.mark.parametrize("reason", ["missing_blob", "wrong_size", "malformed", "norm_bound"])
def test_an_update_that_does_not_deserve_to_count_is_refused_with_its_reason(
    federation: Federation, tmp_path: Path, reason: str
) -> None:
    experiment = experiment_of(federation)
    plan = federation.experiment(experiment).plan
    federation.open_round(experiment)
    federation.reserve(experiment, "basel-heart")
    site = site_of(plan, "basel-heart")
    assert site is not None
    values = np.zeros(plan.parameters, dtype=np.int64)
    if reason == "wrong_size":
        values = np.zeros(plan.parameters + 1, dtype=np.int64)
    elif reason == "norm_bound":
        values[0] = site.update_bound + 1
    op = federation.update(experiment, "basel-heart", values)
    if reason == "malformed":
        good = federation.blobs[op.update.sha256]
        op = replace(op, update=federation.put(b"C" + good[1:]))
    elif reason == "missing_blob":
        del federation.blobs[op.update.sha256]
    update = federation.say(node_of("basel"), op).entry.hash
    ours = aggregator(federation, tmp_path)
    (refused,) = ours.fold(federation.experiment(experiment))
    assert (refused.update, refused.reason) == (update, reason)


def test_an_update_at_its_bound_counts(federation: Federation, tmp_path: Path) -> None:
    experiment = experiment_of(federation)
    plan = federation.experiment(experiment).plan
    site = site_of(plan, "basel-heart")
    assert site is not None
    federation.open_round(experiment)
    federation.reserve(experiment, "basel-heart")
    values = np.zeros(plan.parameters, dtype=np.int64)
    values[0] = -site.update_bound
    federation.submit(experiment, "basel-heart", values)
    ours = aggregator(federation, tmp_path)
    assert ours.fold(federation.experiment(experiment)) == ()


def test_the_final_model_is_the_stated_function_of_the_rounds(
    federation: Federation, tmp_path: Path
) -> None:
    experiment = experiment_of(federation)
    for _ in range(2):
        federation.play_round(experiment)
    ours = aggregator(federation, tmp_path)
    model = ours.final_model(federation.state, federation.experiment(experiment))
    assert model == federation.final_model(experiment)


def test_a_histogram_round_sums_histograms_and_keeps_the_model(
    federation: Federation, tmp_path: Path
) -> None:
    experiment = experiment_of(federation)
    for _ in range(2):
        federation.play_round(experiment)
    opened = federation.open_round(experiment)
    for dataset in opened.cohort:
        federation.submit(experiment, dataset)
    ours = aggregator(federation, tmp_path)
    now = federation.experiment(experiment)
    assert ours.fold(now) == ()
    op = ours.aggregate(federation.state, now)
    assert op.model == opened.model
    stored = ours._blobs.get(op.aggregate)
    assert len(decode_update(stored, now.plan.metric_size)) == now.plan.metric_size


def test_a_plan_that_its_spec_does_not_imply_is_refused(
    federation: Federation, tmp_path: Path
) -> None:
    spec = federation.spec(["basel-heart", "bern-heart"], name="cheaper")
    honest = federation.proposal(spec)
    sites = sites_from(
        federation.state,
        {name: federation.schema(name) for name in spec.federation.datasets},
        spec.federation.datasets,
    )
    plan = compile_plan(spec, sites, honest.plan.initial_model)
    more = replace(plan, quorum=1)
    experiment = federation.say(RESEARCHER, replace(honest, plan=more)).entry.hash
    ours = aggregator(federation, tmp_path)
    with pytest.raises(PlanRefused, match=r"plan\.quorum: it is not what the spec says"):
        ours.prepare(federation.state, federation.experiment(experiment))


def test_a_spec_that_never_arrived_cannot_be_prepared(
    federation: Federation, tmp_path: Path
) -> None:
    experiment = federation.experiment(experiment_of(federation))
    del federation.blobs[experiment.spec.sha256]
    with pytest.raises(BlobMissing):
        aggregator(federation, tmp_path).prepare(federation.state, experiment)


def test_a_first_model_that_never_arrived_is_made_from_the_spec(
    federation: Federation, tmp_path: Path
) -> None:
    experiment = federation.experiment(experiment_of(federation))
    first = federation.blobs.pop(experiment.plan.initial_model.sha256)
    ours = aggregator(federation, tmp_path)
    ours.prepare(federation.state, experiment)
    assert ours._blobs.get(experiment.plan.initial_model) == first


def test_a_model_beyond_float64_is_not_stored(federation: Federation, tmp_path: Path) -> None:
    experiment = experiment_of(federation)
    federation.open_round(experiment)
    for dataset in ("basel-heart", "bern-heart", "chur-heart"):
        federation.reserve(experiment, dataset)
        federation.submit(experiment, dataset)
    now = federation.experiment(experiment)
    ours = aggregator(federation, tmp_path)
    ours.fold(now)
    prepared = ours.prepare(federation.state, now)
    strategy = prepared.spec.federation.strategy.model_copy(update={"learning_rate": float("inf")})
    federating = prepared.spec.federation.model_copy(update={"strategy": strategy})
    spec = prepared.spec.model_copy(update={"federation": federating})
    ours._prepared[experiment] = type(prepared)(spec, prepared.shapes, prepared.final)
    with pytest.raises(LedgerError, match="is not finite"):
        ours.aggregate(federation.state, now)
