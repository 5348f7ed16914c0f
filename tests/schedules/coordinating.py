"""What a coordinator and a researcher do in a schedule, in any order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ledger.entries.operations.experiments import ExperimentStopped
from ledger.entries.operations.rounds import RoundAggregated, RoundClosed, RoundOpened
from ledger.rules import experiments
from ledger.rules.rounds import round_kind
from ledger.rules.state import replace as changed
from tests.federation import COORDINATOR, RESEARCHER
from tests.schedules.promised import DATASET

if TYPE_CHECKING:
    from tests.schedules.world import World


def coordinate(world: World) -> None:
    state = world.states[-1]
    experiment = world.chance.choice(list(state.experiments.values()))
    if experiment.ended:
        return
    current = experiment.round
    if current is None:
        if experiment.next_round > experiments.last_round(experiment.plan):
            return
        world.say(
            COORDINATOR,
            RoundOpened(
                type="round.opened",
                experiment=experiment.id,
                round=experiment.next_round,
                attempt=experiment.next_attempt,
                kind=round_kind(experiment.plan, experiment.next_round),
                cohort=(DATASET,),
                model=experiment.model,
                deadline_ms=state.log_time + 1000,
            ),
        )
    elif current.updates:
        (update,) = current.updates.values()
        world.say(
            COORDINATOR,
            RoundAggregated(
                type="round.aggregated",
                experiment=experiment.id,
                round=current.number,
                attempt=current.attempt,
                updates=(update.entry,),
                aggregate=update.blob,
                model=current.model,
            ),
        )
    elif world.chance.random() < 0.3:
        world.states[-1] = changed(state, log_time=current.deadline_ms + 1)
        world.say(
            COORDINATOR,
            RoundClosed(
                type="round.closed",
                experiment=experiment.id,
                round=current.number,
                attempt=current.attempt,
                reason="quorum_missed",
            ),
        )


def stop(world: World) -> None:
    experiment = world.chance.choice(list(world.states[-1].experiments.values()))
    if not experiment.ended:
        end(world, experiment.id)


def end(world: World, experiment: str) -> None:
    op = ExperimentStopped(type="experiment.stopped", experiment=experiment, reason="researcher")
    world.say(RESEARCHER, op)
