"""Patients with accounts of their own: what a round takes from each, and what the register keeps of it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from immutables import Map

from ledger.entries.operations.datasets import CellCharge, CellLimit, CellRegistered
from ledger.entries.operations.plans import Purpose
from ledger.experiment.network_spec import LogisticRegression, expand
from ledger.experiment.spec import BinaryTask
from ledger.rules.individual import renyi_of
from node.data.encode import Examples
from node.data.patient_spend import Allowance, PatientSpend, members_of
from node.duties.individual import PatientAccounts
from node.errors import AllowanceStale, PatientSpendUnreadable, WorkerMisbehaved
from node.register.individual import LIFETIME, open_spend, seal_spend
from node.register.private import PrivateRegister
from node.training.networks.modules import build
from node.training.rounds.individual import individual_round, individual_sum
from node.training.rounds.train import Training, start_torch
from node.training.sums.exact import loss_of, per_sample
from privacy.errors import BudgetExceeded
from privacy.events import CHARGE_UNIT
from privacy.filters import g_step, limit_for
from privacy.noise import TestRng
from tests.node.cases import CLIP, random_examples, release

start_torch()
KEY = bytes(range(32))
NOISE = 8 * CLIP
STEP = g_step(CLIP, NOISE)
WIDTH = 3


def training(examples: Examples) -> Training:
    model = LogisticRegression(preset="logistic-regression")
    task = BinaryTask(kind="binary", target="ill", positive=("1",))
    engine = per_sample(build(expand(model, WIDTH, 1)))
    return Training(engine, loss_of(task), examples, 50)


def people(count: int) -> np.ndarray:
    return members_of([number.to_bytes(32, "big") for number in range(count)])


class Ward:
    """A half of patients whose accounts are kept in memory."""

    def __init__(self, promise: int, cap: int, seed: int = 1) -> None:
        examples = random_examples(seed, 60, WIDTH, patients=40)
        self.training = training(examples)
        self.members = people(examples.units)
        self.promise, self.cap = promise, cap
        self.lifetime = PatientSpend.nobody()
        self.here = {name: PatientSpend.nobody() for name in ("first", "second")}
        self.costs: list[PatientSpend] = []

    def round(self, model: np.ndarray, experiment: str = "first", seed: int = 0) -> np.ndarray:
        allowance = Allowance(self.promise, self.cap, self.lifetime, self.here[experiment])

        def record(cost: PatientSpend) -> None:
            self.costs.append(cost)
            self.lifetime = self.lifetime.plus(cost)
            self.here[experiment] = self.here[experiment].plus(cost)

        return individual_round(
            self.training,
            model,
            release("train", "individual", noise_sd=NOISE),
            self.members,
            Allowance.decode(allowance.encode()),
            update_bound=2**50,
            rng=TestRng(seed),
            before_noise=lambda purpose, steps: None,
            record_charges=record,
        )


def adversarial_models(rounds: int) -> list[np.ndarray]:
    """Models that make gradients long, short, and opposite to one another."""
    draw = np.random.default_rng(5)
    return [draw.normal(0, scale, WIDTH + 1) for scale in (0.0, 0.1, 1.0, 30.0, 1e6)] * rounds


def test_no_patient_ever_spends_more_than_the_promise_whatever_models_come() -> None:
    promise, cap = 3 * STEP + 17, 2 * STEP + 3
    ward = Ward(promise, cap)
    for number, model in enumerate(adversarial_models(8)):
        ward.round(model, ("first", "second")[number % 2])
    for account, most in ((ward.lifetime, promise), *((a, cap) for a in ward.here.values())):
        assert int(account.spent.max()) <= most
    assert int(ward.lifetime.spent.max()) > 0.999 * promise


def test_what_a_patient_is_charged_is_the_length_of_what_the_patient_adds() -> None:
    """The privacy loss of each patient, measured: the sum with and without, over a whole run."""
    ward = Ward(3 * STEP, 3 * STEP)
    examples, lost = ward.training.examples, [Fraction(0)] * ward.training.examples.units
    for model in adversarial_models(2):
        before = ward.lifetime
        with_all = ward.round(model) - TestRng(0).gaussian_integers(NOISE, WIDTH + 1)
        paid = ward.costs[-1].spent_by(ward.members)
        for unit in range(examples.units):
            others = np.arange(examples.units) != unit
            without = Ward(ward.promise, ward.cap)
            without.training = training(examples.sample(others))
            without.members = ward.members[others]
            without.lifetime = without.here["first"] = before
            rest = without.round(model) - TestRng(0).gaussian_integers(NOISE, WIDTH + 1)
            moved = int(((with_all - rest) ** 2).sum())
            cost = Fraction(moved * CHARGE_UNIT, NOISE**2)
            assert cost <= paid[unit]
            lost[unit] += cost
            # Nobody else's account depends on whether this patient is there.
            assert (without.costs[-1].spent == paid[others]).all()
    assert max(lost) <= 3 * STEP


def test_when_all_have_retired_noise_leaves_all_the_same() -> None:
    ward = Ward(0, 0)
    noise = TestRng(3).gaussian_integers(NOISE, WIDTH + 1)
    assert (ward.round(np.ones(WIDTH + 1), seed=3) == noise).all()
    assert not ward.costs[0].spent.any()


def test_short_gradients_take_part_longer_than_the_worst_case() -> None:
    ward = Ward(2 * STEP, 2 * STEP)
    for _ in range(12):
        ward.round(np.array([0.4, -0.2, 0.1, 0.0]))
    rounds = sum((cost.spent_by(ward.members) > 0).astype(int) for cost in ward.costs)
    assert rounds.min() >= 2
    assert rounds.max() > 4


def test_one_row_that_is_no_number_costs_its_patient_nothing() -> None:
    ward = Ward(2 * STEP, 2 * STEP)
    ward.training.examples.features[0] = np.nan
    most = np.full(len(ward.members), CLIP, dtype=np.int64)
    total, squares = individual_sum(ward.training, ward.training.examples, most, block=64)
    assert np.isfinite(total).all()
    assert (squares <= CLIP**2).all()


# --- what rests --------------------------------------------------------------------------------


def test_a_sealed_record_opens_for_its_own_account_and_hospital_alone() -> None:
    spend = PatientSpend(people(2), np.array([5, 7]))
    sealed = seal_spend(KEY, LIFETIME, spend)
    assert open_spend(KEY, LIFETIME, sealed).spent.tolist() == [5, 7]
    assert people(2)[1].ljust(32, b"\0") not in sealed
    for key, account in ((KEY, "another"), (bytes(32), LIFETIME)):
        with pytest.raises(PatientSpendUnreadable, match="does not open with this hospital's key"):
            open_spend(key, account, sealed)


def test_bytes_that_are_no_record_are_refused() -> None:
    good = PatientSpend(people(2), np.array([5, 7])).encode()
    for bad in (good[:-1], good[:8] + good[40:72] + good[8:40] + good[72:], good[:-1] + b"\xff"):
        with pytest.raises(PatientSpendUnreadable):
            PatientSpend.decode(bad)


CELL = "basel-train"
PROMISE = limit_for(5.0, 1e-5)
CAP = 4 * STEP
CHARGES = (CellCharge(cell=CELL, g=CAP, r=renyi_of(CAP, PROMISE.order_centi)),)
TERMS = CellRegistered(
    type="cell.registered",
    cell=CELL,
    block="all",
    half="individual",
    declared_patients=100,
    epsilon_micro=5_000_000,
    delta_e15=10**10,
    limit=CellLimit(g_max=PROMISE.g_max, r_max=PROMISE.r_max, order_centi=PROMISE.order_centi),
)


class Node:
    """A register on disk with one individual cell, and rounds that cost what a test says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.register = PrivateRegister.open(path)
        self.register.add_cell(TERMS, 20)

    def reserve(self, experiment: str = "a" * 64) -> tuple[str, str]:
        key = (experiment, "basel-heart")
        self.register.reserve("f" * 64, *key, CHARGES, {CELL: STEP})
        return key

    def intend(self, key: tuple[str, str], number: int, purpose: Purpose = "train") -> None:
        self.register.record_intent(*key, purpose, round_number=number, steps=1, at_ms=1)

    def round(self, key: tuple[str, str], number: int, costs: list[int]) -> None:
        accounts = PatientAccounts(self.register, KEY)
        record = accounts.recorder(key, number)
        self.intend(key, number)
        record(PatientSpend(people(len(costs)), np.array(costs)).encode())

    def left(self, key: tuple[str, str], count: int = 3) -> list[int]:
        allowance = PatientAccounts(self.register, KEY).allowance(key)
        return Allowance.decode(allowance).left(people(count)).tolist()

    def spent(self, count: int = 3) -> list[int]:
        """The most that each patient's account says, what was charged to all included."""
        record = open_spend(KEY, LIFETIME, self.register.patients.record_of(LIFETIME))
        base = self.register.view.cells[CELL].spend.g
        return (record.spent_by(people(count)) + base).tolist()

    def back_up(self) -> bytes:
        self.restart()
        return self.path.read_bytes()

    def restore(self, backup: bytes) -> None:
        self.register.close()
        self.path.write_bytes(backup)
        self.register = PrivateRegister.open(self.path)

    def restart(self) -> None:
        self.register.close()
        self.register = PrivateRegister.open(self.path)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "private.db")


def test_a_round_costs_each_patient_what_the_own_gradients_cost(node: Node) -> None:
    key = node.reserve()
    node.round(key, 1, [STEP, 10, 0])
    node.round(key, 2, [STEP, 0, 3])
    assert node.spent() == [2 * STEP, 10, 3]
    assert node.left(key) == [CAP - 2 * STEP, CAP - 10, CAP - 3]
    node.restart()
    assert node.spent() == [2 * STEP, 10, 3]


def test_a_crash_between_intent_and_record_charges_everybody_the_worst_case(node: Node) -> None:
    key = node.reserve()
    node.intend(key, 1)
    node.restart()
    assert node.spent() == [STEP] * 3
    node.round(key, 1, [5, 5, 5])  # the round is made again, from the spare
    assert node.spent() == [STEP + 5] * 3
    assert node.left(key) == [CAP - STEP - 5] * 3


def test_nothing_is_taken_back_twice_or_for_another_round(node: Node) -> None:
    key = node.reserve()
    node.round(key, 1, [1, 1, 1])
    node.intend(key, 2)
    for number in (1, 3):
        with pytest.raises(PatientSpendUnreadable, match="no charge that waits"):
            node.register.patients.take_back(key, number, {})
    assert node.spent() == [STEP + 1] * 3


def test_a_round_made_with_what_was_left_before_all_were_charged_does_not_go_on(node: Node) -> None:
    """A restored register adopts a forgotten reservation while a round is being made."""
    key = node.reserve()
    accounts = PatientAccounts(node.register, KEY)
    record = accounts.recorder(key, 1)
    stale = Allowance.decode(accounts.allowance(key))
    node.intend(key, 1)
    node.register.adopt("f" * 64, "b" * 64, "basel-heart", CHARGES, ())
    with pytest.raises(AllowanceStale, match="nothing was released"):
        record(PatientSpend(people(3), np.array([STEP, 5, 0])).encode())
    assert node.spent() == [CAP + STEP] * 3, "its charge to all stays"
    fresh = Allowance.decode(accounts.allowance(key))
    assert fresh.promise == stale.promise - CAP - STEP
    node.intend(key, 2)
    accounts.recorder(key, 2)(PatientSpend(people(3), np.array([STEP, 5, 0])).encode())
    assert node.spent() == [CAP + 2 * STEP, CAP + STEP + 5, CAP + STEP]


def test_a_charge_above_the_clip_norms_is_not_believed(node: Node) -> None:
    key = node.reserve()
    with pytest.raises(WorkerMisbehaved, match="above that of the clip norm"):
        node.round(key, 1, [STEP + 1])
    assert node.spent() == [STEP] * 3


def test_two_experiments_at_once_sum_up_for_each_patient(node: Node) -> None:
    one, other = node.reserve("a" * 64), node.reserve("b" * 64)
    node.round(one, 1, [STEP, 2, 0])
    node.round(other, 1, [STEP, 0, 4])
    node.intend(one, 2)  # under way: whoever asks now sees its worst case
    assert node.spent() == [3 * STEP, STEP + 2, STEP + 4]
    lifetime = PROMISE.g_max
    allowance = Allowance.decode(PatientAccounts(node.register, KEY).allowance(other))
    assert (allowance.promise - allowance.lifetime.spent_by(people(3))).tolist() == [
        lifetime - 3 * STEP,
        lifetime - STEP - 2,
        lifetime - STEP - 4,
    ]
    assert node.left(other) == [CAP - STEP, CAP, CAP - 4]


def test_a_settlement_gives_no_patient_anything_back(node: Node) -> None:
    key = node.reserve()
    node.round(key, 1, [STEP, 2, 0])
    used: Map[Purpose, int] = Map({"train": 1})
    node.register.settle(*key, (), used)
    assert node.spent() == [STEP, 2, 0]
    assert node.register.patients.held_by(key) == ()


def test_a_restored_register_cannot_refund_a_patient(node: Node) -> None:
    key = node.reserve()
    node.round(key, 1, [STEP, 2, 0])
    backup = node.back_up()
    node.round(key, 2, [7, STEP, 0])
    node.round(key, 3, [0, 0, STEP])
    truth = node.spent()
    settled: Map[Purpose, int] = Map({"train": 3})

    node.restore(backup)  # the log has a settlement for three rounds
    node.register.settle(*key, (), settled)
    assert all(kept >= true for kept, true in zip(node.spent(), truth, strict=True))
    assert node.spent() == [3 * STEP, 2 + 2 * STEP, 2 * STEP]

    node.restore(backup)  # the log has rounds that it does not know: it gives the experiment up
    node.register.adopt("f" * 64, *key, CHARGES)
    assert node.spent() == [STEP + CAP, 2 + CAP, CAP]
    node.register.settle(*key, (), settled)
    assert node.spent() == [STEP + CAP, 2 + CAP, CAP]


def test_a_reservation_of_after_the_backup_is_charged_to_everybody_in_full(node: Node) -> None:
    backup = node.back_up()
    key = node.reserve()
    node.round(key, 1, [STEP, 2, 0])
    node.restore(backup)
    node.register.adopt("f" * 64, *key, CHARGES, ())
    assert node.spent() == [CAP] * 3


def test_a_cell_that_was_charged_to_all_in_full_is_shut(node: Node) -> None:
    for number in range(PROMISE.g_max // CAP + 1):
        node.register.adopt("f" * 64, f"{number:064}", "basel-heart", CHARGES, ())
    assert not node.register.view.admits(CHARGES, 0)
    with pytest.raises(BudgetExceeded):
        node.reserve()


def test_a_reservation_that_does_not_say_what_a_sum_costs_is_not_made(node: Node) -> None:
    with pytest.raises(KeyError):
        node.register.reserve("f" * 64, "a" * 64, "basel-heart", CHARGES)
    assert node.register.view.charges == Map()
