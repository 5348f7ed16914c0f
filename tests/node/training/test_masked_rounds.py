"""Masked rounds over HTTP: four hospitals, one of which leaves at each phase in turn."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ledger.entries.entry import parse_entry
from ledger.entries.operations.masking import MaskingAdvanced, MaskingAgreed, MaskingRevealed
from ledger.entries.operations.rounds import RoundAggregated, RoundClosed, UpdateSubmitted
from ledger.entries.operations.vocabulary import Operation
from ledger.experiment.tensors import decode_update
from ledger.rules import masking
from ledger.rules.experiment_state import Experiment, Masking, OpenRound
from node.errors import RoundFailed
from node.training.process.frames import Job
from node.training.process.trainer import NoopTrainer, Task
from node.training.process.worker import OnIntent
from tests.federation import HOSPITALS
from tests.node.town import Town, small_spec
from tests.patience import PATIENCE_S

PHASES = ("advertise", "share", "mask", "agree", "reveal")
LEAVES = "davos"


class Recorder(NoopTrainer):
    """Noise for gradients, and what was made of it by round; it waits for its gate."""

    def __init__(self) -> None:
        self.made: dict[int, list[bytes]] = {}
        self.gate = threading.Event()
        self.gate.set()

    def run(self, task: Task, job: Job, on_intent: OnIntent) -> bytes:
        self.gate.wait()
        update = super().run(task, job, on_intent)
        self.made.setdefault(task.round, []).append(update)
        return update


@pytest.fixture
def town(tmp_path: Path, quick_keys: None) -> Iterator[Town]:
    with Town(tmp_path, HOSPITALS) as built:
        yield built


def start(
    town: Town,
    waits_for: str | None = None,
    before: Callable[[], None] = lambda: None,
    **federation: object,
) -> tuple[str, dict[str, Recorder]]:
    """Everybody approves a masked experiment; ``before`` is called once the nodes run and nothing is approved."""
    trainers = {name: Recorder() for name in HOSPITALS}
    if waits_for is not None:
        trainers[waits_for].gate.clear()
    datasets = [town.offer(name) for name in HOSPITALS]
    for name in HOSPITALS:
        town.start_node(name, trainers[name])
    spec = small_spec(datasets, **({"secure_aggregation": True, "quorum": 3} | federation))
    experiment = town.propose(spec)
    before()
    for dataset in datasets:
        town.approve(experiment, dataset)
    return experiment, trainers


def leave_in(town: Town, phases: dict[int, str]) -> None:
    """Let one hospital give up in the named phase of each round."""
    actor: Any = town.nodes[LEAVES].service._actor
    masker = actor._masker

    def giving_up(phase: str, do: Any) -> Any:
        def run(key: tuple[str, str]) -> Any:
            current = town.nodes[LEAVES].membership.replica.state.experiments[key[0]].round
            assert current is not None
            if phases.get(current.number) == phase and current.attempt == 1:
                raise RoundFailed("it was switched off")
            return do(key)

        return run

    for phase in PHASES:
        if phase != "mask":
            setattr(masker, phase, giving_up(phase, getattr(masker, phase)))
    honest = masker.mask

    def mask(key: tuple[str, str]) -> Any:
        apply = honest(key)
        current = town.nodes[LEAVES].membership.replica.state.experiments[key[0]].round
        assert current is not None
        number, attempt = current.number, current.attempt

        def run(vector: bytes) -> bytes:
            if phases.get(number) == "mask" and attempt == 1:
                raise RoundFailed("it was switched off")
            return apply(vector)

        return run

    masker.mask = mask


def hold_shares_back_once(town: Town, *hospitals: str) -> None:
    """Let some reveal no share in the first attempt at the first round."""
    for hospital in hospitals:
        masker: Any = town.nodes[hospital].service._actor._masker
        replica = town.nodes[hospital].membership.replica

        def reveal(
            key: tuple[str, str], honest: Any = masker.reveal, replica: Any = replica
        ) -> Any:
            current = replica.state.experiments[key[0]].round
            if current.number == 1 and current.attempt == 1:
                raise RoundFailed("it was switched off")
            return honest(key)

        masker.reveal = reveal


def end_phases_without(
    monkeypatch: pytest.MonkeyPatch, absent: dict[tuple[int, str], set[str]]
) -> None:
    """A phase of a round's first attempt is over once it awaits these alone, whatever the clock says.

    Args:
        monkeypatch: of the test.
        absent: datasets by round and phase of the log.
    """
    at_its_time = masking.phase_deadline_ms

    def deadline_ms(experiment: Experiment, current: OpenRound, phase: Masking) -> int:
        gone = absent.get((current.number, phase.phase), set()) if current.attempt == 1 else set()
        awaited = set(masking.waiting_for(experiment, current, phase))
        return 0 if awaited <= gone else at_its_time(experiment, current, phase)

    monkeypatch.setattr(masking, "phase_deadline_ms", deadline_ms)


def said(town: Town, kind: type[Operation]) -> list[Any]:  # type: ignore[valid-type]
    ada = town.people["ada"]
    ada.follow()
    entries = [parse_entry(row.body, row.signature) for row in ada.replica.store.rows()]
    return [e.body.op for e in entries if isinstance(e.body.op, kind)]


def test_a_dropout_at_each_phase_and_every_sum_is_that_of_the_vectors(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = dict(enumerate(PHASES, start=1))
    of_the_log = {"agree": "unmask", "reveal": "unmask"}
    end_phases_without(
        monkeypatch,
        {(n, of_the_log.get(phase, phase)): {f"{LEAVES}-heart"} for n, phase in rounds.items()},
    )
    experiment, trainers = start(
        town, before=lambda: leave_in(town, rounds), rounds=5, round_timeout_s=240
    )
    town.until(lambda: town.experiment(experiment).status == "released", 2 * PATIENCE_S)
    ada = town.people["ada"]
    survivors = {
        op.round: op.datasets for op in said(town, MaskingAdvanced) if op.phase == "unmask"
    }
    sums = said(town, RoundAggregated)
    assert [op.round for op in sums] == [1, 2, 3, 4, 5, 6]
    for op in sums:
        made = [
            trainers[name.removesuffix("-heart")].made[op.round] for name in survivors[op.round]
        ]
        assert all(len(updates) == 1 for updates in made), "a vector is made once"
        size = (op.aggregate.bytes - 27) // 8
        vectors = [decode_update(updates[0], size) for updates in made]
        total = decode_update(ada.fetch(op.aggregate), size)
        np.testing.assert_array_equal(np.sum(vectors, axis=0), total)
    dropped = [n for n, who in survivors.items() if f"{LEAVES}-heart" not in who]
    assert dropped == [1, 2, 3]
    assert not said(town, RoundClosed)


def test_no_vector_reaches_the_coordinator_bare(town: Town) -> None:
    experiment, trainers = start(town, rounds=2)
    town.until(lambda: town.experiment(experiment).status == "released")
    held = list((town.directory / "hub").rglob("*"))
    content = [path.read_bytes() for path in held if path.is_file()]
    bare = [update for t in trainers.values() for made in t.made.values() for update in made]
    assert len(bare) >= 3 * 3
    assert not any(update[27:] in data for update in bare for data in content)
    for op in said(town, UpdateSubmitted):
        assert op.masked is not None


def test_every_node_reveals_one_secret_of_each_and_never_both(town: Town) -> None:
    experiment, _ = start(town, rounds=1)
    town.until(lambda: town.experiment(experiment).status == "released")
    for op in said(town, MaskingRevealed):
        assert {share.secret for share in op.shares} == {"seed"}
        assert len({share.of for share in op.shares}) == len(op.shares) >= 3


def test_a_node_that_restarts_within_a_round_goes_on_with_its_secrets(town: Town) -> None:
    """Others wait for a vector meanwhile; the restarted one agrees and reveals."""
    experiment, trainers = start(town, waits_for="basel", rounds=1, round_timeout_s=240)

    def submitted() -> bool:
        current = town.experiment(experiment).round
        return current is not None and "bern-heart" in current.updates

    town.until(submitted)
    town.stop_node("bern")
    town.start_node("bern", trainers["bern"])
    trainers["basel"].gate.set()
    town.until(lambda: town.experiment(experiment).next_round == 2)
    (op,) = (op for op in said(town, RoundAggregated) if op.round == 1)
    assert op.attempt == 1
    assert "bern-heart" in {o.dataset for o in said(town, MaskingAgreed) if o.round == 1}
    assert len(trainers["bern"].made[1]) == 1


def test_a_coordinator_that_restarts_within_a_round_goes_on_by_folding(town: Town) -> None:
    experiment, trainers = start(town, waits_for="basel", rounds=1, round_timeout_s=240)

    def submitted() -> bool:
        current = town.experiment(experiment).round
        return current is not None and len(current.updates) >= 2

    town.until(submitted)
    town.stop_coordinator()
    town.start_coordinator()
    trainers["basel"].gate.set()
    town.until(lambda: town.experiment(experiment).next_round == 2)
    (op,) = (op for op in said(town, RoundAggregated) if op.round == 1)
    assert op.attempt == 1


def test_divided_noise_is_never_used_in_a_second_attempt(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of four hold their shares back once: the attempt fails, and the next one is paid anew."""
    end_phases_without(monkeypatch, {(1, "unmask"): {"chur-heart", "davos-heart"}})
    experiment, trainers = start(
        town,
        before=lambda: hold_shares_back_once(town, "chur", "davos"),
        rounds=1,
        round_timeout_s=240,
        secure_aggregation={"noise": "distributed", "colluders": 1},
    )
    town.until(lambda: town.experiment(experiment).status == "released")
    assert [op.reason for op in said(town, RoundClosed)] == ["shares_missing"]
    updates = [op for op in said(town, UpdateSubmitted) if op.round == 1]
    for name in HOSPITALS:
        mine = [op for op in updates if op.dataset == f"{name}-heart"]
        assert [op.attempt for op in mine] in ([1, 2], [2])  # the fourth may come late to the first
        vectors = [op.masked.vector for op in mine]
        assert len(set(vectors)) == len(vectors) == len(trainers[name].made[1])
        assert [op.used[0].steps for op in mine] == list(range(1, len(mine) + 1))
    (plan,) = (town.experiment(experiment).plan,)
    assert (plan.secure_aggregation, plan.noise_shares) == ("distributed", 2)


def test_who_revealed_shares_hands_in_other_noise_in_the_next_attempt(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has enough shares has opened that sum; one without a hospital would bare its one vector."""
    end_phases_without(monkeypatch, {(1, "unmask"): {"chur-heart", "davos-heart"}})
    experiment, trainers = start(
        town,
        before=lambda: hold_shares_back_once(town, "chur", "davos"),
        rounds=1,
        round_timeout_s=240,
    )
    town.until(lambda: town.experiment(experiment).status == "released")
    assert [op.reason for op in said(town, RoundClosed)] == ["shares_missing"]
    updates = [op for op in said(town, UpdateSubmitted) if op.round == 1]
    revealed = {
        op.dataset for op in said(town, MaskingRevealed) if (op.round, op.attempt) == (1, 1)
    }
    assert revealed
    assert revealed <= {"basel-heart", "bern-heart"}
    for name in HOSPITALS:
        mine = [op for op in updates if op.dataset == f"{name}-heart"]
        spent = f"{name}-heart" in revealed
        vectors = {op.masked.vector for op in mine}
        assert len(vectors) == len(trainers[name].made[1]) == (len(mine) if spent else 1)
        assert mine[-1].used[0].steps == len(vectors)
