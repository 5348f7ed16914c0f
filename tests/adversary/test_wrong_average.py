"""The coordinator averages wrongly: exact recomputation from signed updates."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

from ledger.entries.operations.experiments import ExperimentCompleted
from ledger.entries.operations.rounds import (
    RoundAggregated,
    RoundOpened,
    UpdateRefused,
    UpdateSubmitted,
)
from ledger.experiment.average import ExactSum, server_step
from ledger.experiment.privacy_spec import AdaptiveClipping, Privacy
from ledger.experiment.tensors import decode_update, encode_update, pack_model, unpack_model
from ledger.formats.value import replace
from tests.adversary.registry import attack
from tests.adversary.world import World, refuted
from tests.federation import COORDINATOR

SCEPTIC = "a sceptic with the updates"


def answered_round(world: World, **spec: object) -> str:
    """A training round in which both hospitals answered; the sum is still to be made."""
    experiment = world.experiment(**spec)  # type: ignore[arg-type]
    for dataset in world.federation.open_round(experiment).cohort:
        world.federation.reserve(experiment, dataset)
        world.federation.submit(experiment, dataset)
    world.settle()
    world.attack_begins()
    return experiment


def aggregate(
    world: World,
    experiment: str,
    *,
    sum_off: int = 0,
    step_off: int = 0,
    leave_out: str | None = None,
) -> RoundAggregated:
    """What the coordinator says of the open round; honest where nothing is off."""
    federation = world.federation
    now = federation.experiment(experiment)
    assert now.round is not None
    size = now.plan.parameters
    counting = {d: u for d, u in now.round.updates.items() if u.refused is None and d != leave_out}
    exact = ExactSum(size)
    for update in counting.values():
        exact.add(decode_update(federation.blobs[update.blob.sha256], size))
    total = exact.total()
    total[0] += sum_off
    stepped = total.copy()
    stepped[0] += step_off
    shapes = federation.shapes(experiment)
    before = unpack_model(federation.blobs[now.round.model.sha256], shapes)
    divisor = sum(site.divisor for site in now.plan.sites if site.dataset in counting)
    after = server_step(federation.spec_of(experiment), before, stepped, divisor)
    return RoundAggregated(
        type="round.aggregated",
        experiment=experiment,
        round=now.round.number,
        attempt=now.round.attempt,
        updates=tuple(sorted(u.entry for u in counting.values())),
        aggregate=federation.put(encode_update(total)),
        model=federation.put(pack_model(shapes, after)),
    )


def test_the_honest_sum_is_the_one_that_the_sceptic_makes(world: World) -> None:
    experiment = answered_round(world)
    world.federation.say(COORDINATOR, aggregate(world, experiment))
    verdicts = world.audit(world.coordinator.write(world.directory / "hub"))
    assert verdicts.exit_code == 0
    assert verdicts.best.verdict_of(12) == "proved"


@pytest.mark.parametrize(
    ("sum_off", "step_off", "detail"),
    [
        pytest.param(
            1,
            0,
            "the sum is not that of its updates",
            marks=attack(
                name="coordinator adds one grid unit (2^-20) to one number of a sum",
                exposed_by=SCEPTIC,
                evidence="the signed updates' exact sum is another blob than the entry names",
            ),
        ),
        pytest.param(
            0,
            1,
            "the model is not the sum's step",
            marks=attack(
                name="coordinator names the right sum and another model",
                exposed_by=SCEPTIC,
                evidence="the stated server step of that sum gives another blob",
            ),
        ),
    ],
)
def test_a_wrong_average_is_refuted_to_the_bit(
    world: World, sum_off: int, step_off: int, detail: str
) -> None:
    experiment = answered_round(world)
    false = aggregate(world, experiment, sum_off=sum_off, step_off=step_off)
    said = world.federation.say(COORDINATOR, false)  # the lie
    verdicts = world.audit(world.coordinator.write(world.directory / "hub"))
    assert refuted(verdicts) == [(12, f"entry {said.index}")]
    assert detail in verdicts.best.refuted[0].detail
    world.exposed(SCEPTIC)
    assert verdicts.best.verdict_of(5) == "proved"  # signatures and chains stay trusted


@attack(
    name="coordinator leaves a hospital's update out of the sum",
    exposed_by="everybody's fold",
    evidence="void: updates_mismatch",
)
def test_a_sum_that_leaves_an_update_out_is_void(world: World) -> None:
    experiment = answered_round(world)
    model = world.federation.experiment(experiment).model
    op = aggregate(world, experiment, leave_out="bern-heart")
    world.federation.say(COORDINATOR, op, void="updates_mismatch")  # the lie
    assert world.hospital("bern").follow()[-1].outcome.void == "updates_mismatch"
    world.exposed("everybody's fold")
    now = world.hospital("bern").replica.state.experiments[experiment]
    assert now.round is not None
    assert now.model == model


@attack(
    name="coordinator has another model evaluated and completed than the rounds made",
    exposed_by=SCEPTIC,
    evidence="the average of the late rounds' models is another blob",
)
def test_a_final_model_from_elsewhere_is_refuted(world: World) -> None:
    federation = world.federation
    experiment = world.experiment()
    federation.play_round(experiment)
    federation.play_round(experiment)
    now, shapes = federation.experiment(experiment), federation.shapes(experiment)
    flat = unpack_model(federation.blobs[now.model.sha256], shapes)
    false = federation.put(pack_model(shapes, np.nextafter(flat, 1)))
    op = RoundOpened(
        type="round.opened",
        experiment=experiment,
        round=now.next_round,
        attempt=1,
        kind="evaluate",
        cohort=tuple(sorted(now.approvals)),
        model=false,
        deadline_ms=federation.now_ms + 1_000_000,
    )
    world.attack_begins()
    said = federation.say(COORDINATOR, op)  # the lie
    for dataset in op.cohort:
        federation.submit(experiment, dataset)
    federation.aggregate(experiment)
    done = ExperimentCompleted(type="experiment.completed", experiment=experiment, model=false)
    federation.say(COORDINATOR, done)
    verdicts = world.audit(world.coordinator.write(world.directory / "hub"))
    assert refuted(verdicts) == [(12, f"entry {said.index}")]
    assert "is not the average of the late rounds' models" in verdicts.best.refuted[0].detail
    world.exposed(SCEPTIC)


def adapting() -> Privacy:
    return Privacy(epsilon=Decimal(1), clipping=AdaptiveClipping(kind="adaptive"))


@attack(
    name="coordinator states another next clip norm than the released count gives",
    exposed_by=SCEPTIC,
    evidence="the stated server step of that sum gives another blob",
)
def test_another_clip_norm_is_refuted(world: World) -> None:
    experiment = answered_round(world, privacy=adapting())
    federation = world.federation
    honest = aggregate(world, experiment)
    shapes = federation.shapes(experiment)
    flat = unpack_model(federation.blobs[honest.model.sha256], shapes).copy()
    flat[-1] *= 2.0
    false = replace(honest, model=federation.put(pack_model(shapes, flat)))
    said = federation.say(COORDINATOR, false)  # the lie
    verdicts = world.audit(world.coordinator.write(world.directory / "hub"))
    assert refuted(verdicts) == [(12, f"entry {said.index}")]
    assert "the model is not the sum's step" in verdicts.best.refuted[0].detail
    world.exposed(SCEPTIC)


def test_norms_that_adapt_are_recomputed_over_a_whole_experiment(world: World) -> None:
    federation = world.federation
    experiment = world.experiment(privacy=adapting())
    federation.play(experiment)
    done = federation.experiment(experiment)
    shapes = [s for s in federation.shapes(experiment) if s[0] != "clip_norm"]
    unpack_model(federation.blobs[done.model.sha256], shapes)  # without the norm
    verdicts = world.audit(world.coordinator.write(world.directory / "hub"))
    assert verdicts.exit_code == 0
    assert verdicts.best.verdict_of(12) == "proved"


@attack(
    name="coordinator releases the plain mean of the late models where the spec asks for another average",
    exposed_by=SCEPTIC,
    evidence="the spec's exponential moving average of the rounds' models is another blob",
)
def test_another_average_than_the_specs_is_refuted(world: World) -> None:
    federation = world.federation
    strategy = {"name": "fedsgd", "learning_rate": "2", "average_last": "1", "ema": "0.9"}
    experiment = world.experiment(strategy=strategy)
    federation.play_round(experiment)
    federation.play_round(experiment)
    spec = federation.spec_of(experiment)
    plain = spec.federation.strategy.model_copy(update={"ema": None})
    other = spec.federation.model_copy(update={"strategy": plain})
    false = federation.final_model(experiment, spec.model_copy(update={"federation": other}))
    world.attack_begins()
    said = federation.open_round(experiment, model=false)  # the lie
    for dataset in said.cohort:
        federation.submit(experiment, dataset)
    federation.aggregate(experiment)
    done = ExperimentCompleted(type="experiment.completed", experiment=experiment, model=false)
    federation.say(COORDINATOR, done)
    verdicts = world.audit(world.coordinator.write(world.directory / "hub"))
    assert verdicts.exit_code != 0
    assert "is not the average of the late rounds' models" in verdicts.best.refuted[0].detail
    world.exposed(SCEPTIC)


def test_a_moving_average_is_recomputed(world: World) -> None:
    strategy = {"name": "fedavg", "average_last": "1", "ema": "0.25"}
    experiment = world.experiment(strategy=strategy)
    world.federation.play(experiment)
    assert world.audit(world.coordinator.write(world.directory / "hub")).exit_code == 0


def refuse(world: World, experiment: str, reason: str) -> int:
    """The coordinator leaves basel's update out, and says why; returns the entry's index."""
    current = world.federation.experiment(experiment).round
    assert current is not None
    op = UpdateRefused(
        type="update.refused",
        update=current.updates["basel-heart"].entry,
        reason=reason,  # type: ignore[arg-type]
    )
    return world.federation.say(COORDINATOR, op).index


@attack(
    name="coordinator leaves a good update out of the sum with a false reason",
    exposed_by=SCEPTIC,
    evidence="the update's own bytes: they deserve to count",
)
@pytest.mark.parametrize("reason", ["norm_bound", "malformed", "wrong_size"])
def test_a_good_update_that_was_refused_is_found(world: World, reason: str) -> None:
    experiment = answered_round(world, quorum=1)
    at = refuse(world, experiment, reason)  # the lie
    world.federation.aggregate(experiment)
    verdicts = world.audit(world.coordinator.write(world.directory / "hub"))
    assert refuted(verdicts) == [(12, f"entry {at}")]
    assert f"left out of the sum as {reason}" in verdicts.best.refuted[0].detail
    world.exposed(SCEPTIC)


def test_a_refusal_that_no_copy_can_judge_is_never_called_good(world: World) -> None:
    experiment = answered_round(world, quorum=1)
    refuse(world, experiment, "missing_blob")
    world.federation.aggregate(experiment)
    here = world.audit(world.coordinator.write(world.directory / "hub")).best
    assert [c.detail for c in here.unchecked if c.step == 12] == [
        "first, round 1: the update of basel-heart was refused as missing, and is here: "
        "whether it came too late no copy can show"
    ]
    current = world.federation.experiment(experiment)
    entry = next(
        e.body.op
        for e in world.federation.entries()
        if isinstance(e.body.op, UpdateSubmitted) and e.body.op.dataset == "basel-heart"
    )
    assert current.next_round == 2
    del world.federation.blobs[entry.update.sha256]
    gone = world.audit(world.coordinator.write(world.directory / "without")).best
    assert gone.exit_code == 0
    (detail,) = [c.detail for c in gone.unchecked if c.step == 12]
    assert "was refused (missing_blob), and cannot be read" in detail
