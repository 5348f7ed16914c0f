"""A node's training code against its plan on synthetic rows, and what a node does where it fails."""

from __future__ import annotations

import io
import queue
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from torch.nn import Conv1d

from benchmarks.self_audit import FAULTS, honest, shared_seed, undeclared
from ledger.entries.operations.audits import PrivacyAudited
from ledger.entries.operations.budgets import BudgetRefused
from node.duties.audited import residuals_audited
from node.errors import SelfTestFailed
from node.service.local_api import _illness
from node.training.networks.composed import ComposedNetwork
from node.training.process import selftest, selftest_networks
from node.training.process.frames import Failed, Job, Round, failure_of, read_frame
from node.training.process.selftest import LOCAL_STEPS, ROUNDS_AN_ENGINE, SITES, run_selftest
from node.training.process.trainer import NoopTrainer, Task
from node.training.process.worker import OnIntent, Worker
from node.training.process.worker_process import _Noise, _Serving
from node.training.rounds.train import start_torch
from node.training.sums.bookkeeping import BookKeeping
from node.training.sums.composed import ComposedSum
from node.training.sums.dense import DenseSum
from privacy.errors import NoiseLost
from privacy.noise import TestRng
from privacy.selfaudit.checks import CHECKS, Finding, Report
from tests.federation import node_of
from tests.node.service.played import said, start
from tests.node.town import Town

start_torch()
FAST = ("fast embedding", "fast convolution", "fast recurrent")


def numbered() -> Callable[[str], TestRng]:
    opened: list[str] = []

    def open_noise(purpose: str) -> TestRng:
        opened.append(purpose)
        return TestRng(len(opened))

    return open_noise


def test_whole_rounds_over_synthetic_rows_give_the_plan_s_noise_and_nothing_else() -> None:
    report = run_selftest(numbered())
    assert report.failure is None
    gradients = len(SITES) * 2 * ROUNDS_AN_ENGINE
    assert report.residuals == (gradients + len(SITES)) * 512
    steps = gradients + len(SITES) + 2 * len(SITES) * LOCAL_STEPS
    assert report.findings[-1].says == f"{steps} noisy steps were drawn, {steps} declared"


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found(name: str) -> None:
    assert FAULTS[name]().failure is not None


def test_the_benchmark_s_parts_run_small() -> None:
    assert honest(5)["alarms"] == 0
    assert shared_seed(14, 5)["found"] == 5
    assert undeclared(4, 3)["found"] == 3


@dataclass
class Faulty(NoopTrainer):
    """Its noise is wrong, and it must never be asked for a round."""

    asked: int = 0

    def start(self) -> Report | None:
        return Report(512, 0.5, (Finding("sigma", 0.0, "observed over planned is 0.5"),))

    def run(self, task: Task, job: Job, on_intent: OnIntent) -> bytes:
        self.asked += 1
        return super().run(task, job, on_intent)


def test_a_node_whose_self_test_fails_says_so_and_trains_nothing(town: Town) -> None:
    trainer = Faulty()
    experiment = start(town, {"basel": trainer})
    town.until(lambda: bool(said(town, BudgetRefused)) and bool(said(town, PrivacyAudited)))
    ((author, audited),) = said(town, PrivacyAudited)
    assert author == node_of("basel")
    assert isinstance(audited, PrivacyAudited)
    assert (audited.finding, audited.measured_ppm) == ("contradicts", 500_000)
    assert town.experiment(experiment).budget_refusals["basel-heart"].reason == "local_policy"
    assert trainer.asked == 0
    picture = town.nodes["basel"].service.picture
    assert _illness(picture) == "self-test failed: sigma: observed over planned is 0.5"


def test_the_process_that_trains_tests_itself_and_tells_its_parent() -> None:
    with Worker() as worker:
        report = worker.selftest()
    assert report.failure is None
    assert [one.check for one in report.findings] == list(CHECKS)
    entry = residuals_audited(report)
    assert entry.low_ppm < entry.measured_ppm < entry.high_ppm
    assert entry.finding == "as_proved"


def test_the_process_runs_no_round_where_its_self_test_fails() -> None:
    bad = Report(512, 0.5, (Finding("sigma", 0.0, "observed over planned is 0.5"),))
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    replies = io.BytesIO()

    def run_round(*arguments: object) -> bytes:
        raise AssertionError("a round ran")

    serving = _Serving(requests, replies, _Noise(None), run_round, lambda noise: bad)
    requests.put((Round(kind="train", round=1, sha256="0" * 64), (b"",) * 8))
    serving.serve_one()
    replies.seek(0)
    header, parts = read_frame(replies.read)
    assert isinstance(header, Failed)
    error = failure_of(header, parts)
    assert isinstance(error, SelfTestFailed)
    assert error.reason == "sigma: observed over planned is 0.5"
    assert "does not train" in str(error)


def test_noise_that_is_lost_in_a_round_ends_the_process_for_its_intent_is_recorded() -> None:
    """A refusal would say that nothing was charged."""
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    replies = io.BytesIO()

    def run_round(*arguments: object) -> bytes:
        raise NoiseLost("it ended")

    serving = _Serving(requests, replies, _Noise(None), run_round, lambda noise: Report(512, 1, ()))
    parts = (b"", b"", b"", b"", b"rows.csv", bytes(32), b"", b"")
    requests.put((Round(kind="train", round=1, sha256="0" * 64), parts))
    with pytest.raises(NoiseLost, match="charged and not released"):
        serving.serve_one()
    assert replies.getvalue() == b""


@pytest.mark.parametrize("engine", [DenseSum, ComposedSum])
def test_a_sum_that_is_not_what_rows_make_fails_the_test_and_is_named(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = engine.clipped_sum
    monkeypatch.setattr(engine, "clipped_sum", lambda *of: true(*of) * 101 // 100)
    wrong = selftest_networks.wrong_sums.__wrapped__()
    named = {DenseSum: ("fast mlp",), ComposedSum: FAST}
    assert wrong == named[engine]
    monkeypatch.setattr(selftest, "wrong_sums", lambda: wrong)
    failure = run_selftest(numbered()).failure
    assert failure is not None
    assert f"clipped sums that are not what rows' gradients make: {', '.join(wrong)}" in failure


def test_each_way_of_a_layer_is_tried() -> None:
    networks = dict(selftest_networks._networks())
    assert set(networks) == {"mlp", "embedding", "convolution", "recurrent"}
    module = ComposedNetwork(networks["convolution"])
    engine = BookKeeping(module, lambda outputs, targets: outputs, 64)
    kept = [engine._keeps(rule) for layer, rule in engine._rules.items() if type(layer) is Conv1d]
    assert kept == [True, False]
