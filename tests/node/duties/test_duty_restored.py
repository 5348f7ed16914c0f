"""A register from a backup, or cut off in a round: what its node counts as spent before anything else."""

from __future__ import annotations

from pathlib import Path

import pytest
from immutables import Map

from ledger.entries.operations.budgets import BudgetSettled
from ledger.entries.operations.log import TimeNoted
from ledger.entries.operations.rounds import RoundClosed
from ledger.rules.budget import refunds
from ledger.rules.experiments import site_of
from node.duties.duty import (
    Adopt,
    Refuse,
    Settle,
    Train,
    Wait,
)
from node.duties.recovery import counted_in
from node.register.accounts import stated
from tests.federation import COORDINATOR, HOUR_MS, node_of
from tests.node.duties.scenes import MINE, Scene
from tests.node.hospital import Hospital


def test_after_a_restored_backup_the_reservation_counts_as_spent(scene: Scene) -> None:
    scene.open_round()
    scene.federation.reserve(scene.experiment, MINE)  # the register knows nothing of it
    charges = scene.basel.charges(scene.experiment, MINE)
    assert scene.basel.duties() == (Adopt(scene.experiment, MINE, charges),)
    scene.basel.register.adopt(scene.federation.id, scene.experiment, MINE, charges)
    assert scene.basel.duties() == (Refuse(scene.experiment, MINE, "unavailable"),)
    scene.stop()
    (duty,) = scene.basel.duties()
    assert isinstance(duty, Settle)
    assert duty.used["train"] == 3
    assert duty.used["evaluate"] == 1


def settle_in_log(scene: Scene, train: int) -> None:
    op = BudgetSettled(
        type="budget.settled",
        experiment=scene.experiment,
        dataset=MINE,
        used=stated(Map({"train": train})),  # type: ignore[arg-type]
        intents="0" * 64,
    )
    scene.federation.say(node_of("basel"), op)


def test_a_restored_register_learns_what_was_settled_meanwhile(scene: Scene) -> None:
    scene.open_round()
    scene.federation.reserve(scene.experiment, MINE)  # the register knows nothing of it
    scene.stop()
    settle_in_log(scene, 2)
    charges = scene.basel.charges(scene.experiment, MINE)
    used = Map({"train": 2})
    assert scene.basel.duties() == (Adopt(scene.experiment, MINE, charges, used),)  # type: ignore[arg-type]
    site = site_of(scene.federation.experiment(scene.experiment).plan, MINE)
    assert site is not None
    key = (scene.experiment, MINE)
    scene.basel.register.adopt(scene.federation.id, *key, charges, refunds(site, used))  # type: ignore[arg-type]
    scene.basel.restart()
    assert scene.basel.duties() == ()
    here = scene.basel.register.view.cells["basel-all"].spend
    assert here == scene.federation.state.cells["basel-all"].spend
    assert here.g > 0


@pytest.mark.parametrize("settled_before", [True, False])
def test_spend_that_came_with_the_cell_is_not_counted_again(
    scene: Scene, tmp_path: Path, settled_before: bool
) -> None:
    scene.open_round()
    scene.federation.reserve(scene.experiment, MINE)
    scene.stop()
    if settled_before:
        settle_in_log(scene, 2)
    cell = scene.federation.state.cells["basel-all"]
    (tmp_path / "new").mkdir()
    new = Hospital(scene.federation, "basel", tmp_path / "new")
    counted = counted_in(scene.federation.state, "basel-all")
    new.register.add_cell(cell.terms, None, cell.spend, counted)
    if not settled_before:
        settle_in_log(scene, 2)
    (adopt,) = new.duties()
    assert isinstance(adopt, Adopt)
    site = site_of(scene.federation.experiment(scene.experiment).plan, MINE)
    assert site is not None
    given = refunds(site, Map({"train": 2}))
    new.register.adopt(scene.federation.id, scene.experiment, MINE, adopt.charges, given)
    here = new.register.view.cells["basel-all"].spend
    assert here == scene.federation.state.cells["basel-all"].spend


def test_a_start_charges_the_round_that_a_restored_register_forgot(scene: Scene) -> None:
    scene.reserved()
    backup = scene.basel.back_up()
    scene.trained()  # and its noise may have left
    scene.basel.restore(backup)
    for _ in range(2):
        scene.basel.restart()
        scene.basel.come_back()
        assert dict(scene.basel.register.view.used_by((scene.experiment, MINE))) == {"train": 1}
    final_size = scene.federation.state.size - 1
    (wait,) = scene.basel.duties(final_size=final_size)
    assert isinstance(wait, Wait), "an intent of a restart is no permission"
    assert scene.basel.duties() == (Train(scene.experiment, MINE, 1, 1, "train"),)


def test_a_backup_restored_twice_within_a_round_is_spent_in_full(scene: Scene) -> None:
    scene.reserved()
    backup = scene.basel.back_up()
    key = (scene.experiment, MINE)
    for used in ({"train": 1}, None):
        scene.basel.restore(backup)
        scene.basel.resume()
        if used is not None:
            assert dict(scene.basel.register.view.used_by(key)) == used
            scene.trained()  # and its noise may have left
    assert scene.basel.register.view.charges[key] == "lost"
    assert scene.basel.duties() == (Refuse(*key, "unavailable"),)
    scene.stop()
    (settle,) = scene.basel.duties()
    assert isinstance(settle, Settle)
    assert dict(settle.used) == {"train": 3, "evaluate": 1}, "all that was reserved"


def test_a_start_charges_a_round_that_was_closed_without_its_vector(scene: Scene) -> None:
    scene.reserved()
    scene.federation.now_ms += 2 * HOUR_MS
    scene.federation.say(COORDINATOR, TimeNoted(type="time.noted"))
    op = RoundClosed(
        type="round.closed", experiment=scene.experiment, round=1, attempt=1, reason="quorum_missed"
    )
    scene.federation.say(COORDINATOR, op)
    scene.basel.resume()
    key = (scene.experiment, MINE)
    assert dict(scene.basel.register.view.used_by(key)) == {"train": 1}
    scene.basel.resume()
    assert dict(scene.basel.register.view.used_by(key)) == {"train": 1}, "once a round"
    assert scene.basel.register.view.charges[key] == "reserved"


def test_a_start_charges_nothing_where_the_vector_is_kept_or_the_log_knows_more(
    scene: Scene,
) -> None:
    scene.reserved()
    scene.trained()
    scene.basel.come_back()
    key = (scene.experiment, MINE)
    assert dict(scene.basel.register.view.used_by(key)) == {"train": 1}
    scene.basel.register.adopt(scene.federation.id, *key, ())
    scene.basel.come_back()
    assert dict(scene.basel.register.view.used_by(key)) == {"train": 1}


def test_a_start_charges_no_more_than_the_plan_has_left(scene: Scene) -> None:
    scene.reserved()
    scene.basel.intend(scene.experiment, MINE, "train", 7, 3)  # two rounds and one spare
    scene.basel.come_back()
    assert scene.basel.duties() == (Refuse(scene.experiment, MINE, "no_spare_round"),)
    used = scene.basel.register.view.used_by((scene.experiment, MINE))
    assert dict(used) == {"train": 3}


def test_a_register_that_counts_less_than_the_log_is_a_restored_backup(scene: Scene) -> None:
    scene.reserved()
    scene.federation.submit(scene.experiment, MINE)
    (duty,) = scene.basel.duties()
    assert isinstance(duty, Adopt)


def test_nothing_is_settled_before_others_vouched_for_the_log(scene: Scene) -> None:
    scene.reserved()
    scene.stop()
    (duty,) = scene.basel.duties(vouched=False)
    assert isinstance(duty, Wait)
    assert scene.basel.duties() == (Settle(scene.experiment, MINE, Map()),)
