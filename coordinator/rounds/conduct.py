"""The conductor: does what ``rounds.next_actions`` says, as soon as the log makes it due.

A thread that wakes on every change of the log (a timer only for deadlines), asks the pure function,
does the arithmetic, lets the sequencer say the result, and asks again. It holds nothing that the log
and the blobs do not hold. What it says may turn out void when something else came first; then it
leaves that experiment alone until the log says something new of it. What it falls over without having
foreseen it, it begins again from the log and the blobs, after a pause, and says so meanwhile (``trouble``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Literal

import structlog

from coordinator.errors import NotSequencing
from coordinator.rounds.actions import (
    Action,
    Advance,
    Complete,
    Conclude,
    Open,
    Say,
    next_actions,
    next_wake_ms,
)
from coordinator.rounds.aggregate import Aggregator
from coordinator.rounds.agreed_clock import AgreedClock
from coordinator.sequencing.sequencer import Sequencer
from ledger.entries.author import clock_ms
from ledger.entries.operations.experiments import ExperimentCompleted, ExperimentStopped
from ledger.entries.operations.log import ProtocolActivated, TimeNoted
from ledger.entries.operations.masking import MaskingAdvanced
from ledger.entries.operations.rounds import RoundClosed, RoundOpened
from ledger.entries.operations.vocabulary import Operation
from ledger.errors import BlobError, MalformedInput, NotAdmitted, PlanRefused
from ledger.rules import masking
from ledger.rules.experiment_state import Experiment, Masking, OpenRound
from ledger.rules.fold import PROTOCOLS
from ledger.rules.protocol import activation_due
from ledger.rules.state import State
from privacy.errors import SharesMissing

_log = structlog.get_logger("coordinator.rounds.conduct")
_LONGEST_SLEEP_S = 3600.0
_DOUBT_S = 0.2
"""How often to see whether a member agreed with the clock meanwhile."""
PAUSE_S = 1.0
"""Before a first new beginning; each further one waits twice as long."""
LONGEST_PAUSE_S = 60.0


class Conductor:
    """See the module's first lines."""

    def __init__(
        self,
        sequencer: Sequencer,
        aggregator: Aggregator,
        *,
        now_ms: Callable[[], int] = clock_ms,
        clock: AgreedClock | None = None,
    ) -> None:
        self._sequencer = sequencer
        self._clock = clock
        self._doubted = False
        self._aggregator = aggregator
        self._now_ms = now_ms
        self._held: dict[str, Experiment] = {}
        self._known_until_ms: dict[str, int] = {}
        self._wake = threading.Event()
        self._closing = threading.Event()
        self.trouble: str | None = None
        """Why no round moves, or None; any thread reads it."""
        self._thread = threading.Thread(target=self._run, name="conductor", daemon=True)
        sequencer.on_change(self._wake.set)

    def start(self) -> None:
        """Go on where the log stands."""
        self._wake.set()
        self._thread.start()

    def close(self) -> None:
        """Stop after the step under way."""
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def step(self) -> bool:
        """Do all that is due now, once.

        Returns:
            Whether anything was said, so that more may be due.
        """
        state = self._sequencer.view.state
        version = activation_due(state, PROTOCOLS)
        if version is not None:
            self._say(state, [ProtocolActivated(type="protocol.activated", version=version)])
            return True
        ops: list[Operation] = []
        for experiment in state.experiments.values():
            if experiment.round is not None and not self._is_held(experiment):
                ops.extend(self._aggregator.fold(experiment))
        if ops:
            self._say(state, ops)
            return True
        view = self._sequencer.view
        if view.state is not state:
            return True
        actions = next_actions(
            state,
            now_ms=self._now_ms(),
            final_size=view.final_size,
            completed_at=self._sequencer.history.completed_at,
            until_ms=self._until_ms(state),
        )
        for action in actions:
            held = state.experiments.get(action.experiment)
            if held is not None and self._is_held(held):
                continue
            op = self._operation(state, action)
            if op is not None:
                ops.append(op)
        if ops:
            self._say(state, ops)
        return bool(ops)

    def _run(self) -> None:
        """The thread's outermost shell."""
        failures = 0
        while not self._closing.is_set():
            greeted = False
            try:
                while not self._closing.is_set():
                    self._wake.wait(self._sleep_s())
                    self._wake.clear()
                    if not self._may_say():
                        self._doubt_clock()
                        continue
                    if not greeted:
                        self._greet()
                        greeted = True
                    while not self._closing.is_set() and self._may_say() and self.step():
                        pass
                    failures, self.trouble = 0, None
            except NotSequencing as error:
                _log.info("stopped with the log", reason=error.reason)
                return
            except NotAdmitted as error:
                _log.error(
                    "silent: no round moves until the coordinator has new keys", reason=str(error)
                )
                return
            except Exception as error:  # noqa: BLE001
                self.trouble = "no round moves: an internal error; see the coordinator's log"
                pause_s = min(LONGEST_PAUSE_S, PAUSE_S * 2**failures)
                _log.exception("crashed: begins again", error=repr(error), pause_s=pause_s)
                failures = min(failures + 1, 10)
                self._aggregator.forget_all()  # a sum may be half-way
                self._held.clear()
                self._closing.wait(pause_s)
                self._wake.set()

    def _greet(self) -> None:
        """Cosignatures were in memory only: a fresh checkpoint gets fresh ones."""
        if self._sequencer.view.final_size < self._sequencer.view.size:
            self._sequencer.say(TimeNoted(type="time.noted")).result()

    def _may_say(self) -> bool:
        state = self._sequencer.view.state
        return self._clock is None or self._clock.may_say(state.log_time, state.policy.skew_ms)

    def _doubt_clock(self) -> None:
        """Not a trouble of health: whoever waits for that to turn green may be who keeps members off."""
        if not self._doubted:
            log_time = datetime.fromtimestamp(self._sequencer.view.state.log_time / 1000, UTC)
            _log.warning(
                "waiting for a member whose clock agrees with this machine's",
                log_time=log_time.isoformat(),
            )
        self._doubted = True

    def _sleep_s(self) -> float:
        if not self._may_say():
            return _DOUBT_S
        now_ms = self._now_ms()
        state = self._sequencer.view.state
        wake_ms = next_wake_ms(state, now_ms, self._until_ms(state))
        if wake_ms is None:
            return _LONGEST_SLEEP_S
        return min(_LONGEST_SLEEP_S, max(0, wake_ms - now_ms) / 1000)

    def _until_ms(self, state: State) -> Mapping[str, int]:
        """The ends of the specs that are here, of the experiments that have not ended."""
        ends: dict[str, int] = {}
        for experiment in state.experiments.values():
            if experiment.ended:
                continue
            end = self._known_until_ms.get(experiment.id)
            if end is None:
                end = self._aggregator.until_ms(experiment)
            if end is not None:
                ends[experiment.id] = end
        self._known_until_ms = ends
        return ends

    def _operation(self, state: State, action: Action) -> Operation | None:
        """What to say for an action, None while it must wait; who cannot go on is stopped."""
        if isinstance(action, Say):
            return action.op
        experiment = state.experiments[action.experiment]
        try:
            if isinstance(action, Open):
                return self._open(state, experiment, action)
            if isinstance(action, Advance):
                return self._advance(experiment)
            if isinstance(action, Conclude):
                return self._conclude(state, experiment)
            return self._complete(state, experiment, action)
        except (PlanRefused, MalformedInput, BlobError) as error:
            _log.warning("experiment stopped", experiment=experiment.id, reason=str(error))
            return ExperimentStopped(
                type="experiment.stopped", experiment=experiment.id, reason="invalid_plan"
            )

    def _open(self, state: State, experiment: Experiment, action: Open) -> Operation:
        self._aggregator.prepare(state, experiment)
        model = experiment.model
        if action.kind == "evaluate" and action.attempt == 1:
            model = self._aggregator.final_model(state, experiment)
        return RoundOpened(
            type="round.opened",
            experiment=experiment.id,
            round=action.number,
            attempt=action.attempt,
            kind=action.kind,
            cohort=action.cohort,
            model=model,
            deadline_ms=action.deadline_ms,
        )

    def _advance(self, experiment: Experiment) -> Operation:
        current = experiment.round
        if current is None or current.masking is None:
            raise ValueError(f"experiment {experiment.id} has no masked round")
        phase = masking.next_phase(current.masking)
        able = self._aggregator.able(current, current.masking)
        if phase is None or len(able) < masking.needed(experiment, current):
            return _closed(experiment.id, current, "shares_missing")
        return MaskingAdvanced(
            type="masking.advanced",
            experiment=experiment.id,
            round=current.number,
            attempt=current.attempt,
            phase=phase,
            datasets=able,
        )

    def _open_masked(
        self, state: State, experiment: Experiment, current: OpenRound, phase: Masking
    ) -> Operation | None:
        """The sum, or the end of a masked round that cannot have one; None while shares may come."""
        if phase.phase != "unmask":
            return _closed(experiment.id, current, "quorum_missed")
        if masking.can_be_opened(current):
            try:
                return self._aggregator.aggregate(state, experiment)
            except SharesMissing as error:
                _log.warning("shares do not fit", experiment=experiment.id, reason=str(error))
                late = self._now_ms() > masking.phase_deadline_ms(experiment, current, phase)
                if masking.waiting_for(experiment, current, phase) and not late:
                    return None
        return _closed(experiment.id, current, "shares_missing")

    def _conclude(self, state: State, experiment: Experiment) -> Operation | None:
        current = experiment.round
        if current is None:
            raise ValueError(f"experiment {experiment.id} has no open round")
        if current.masking is not None:
            return self._open_masked(state, experiment, current, current.masking)
        counting = sum(u.refused is None for u in current.updates.values())
        if counting >= experiment.plan.quorum:
            return self._aggregator.aggregate(state, experiment)
        return _closed(experiment.id, current, "quorum_missed")

    def _complete(self, state: State, experiment: Experiment, action: Complete) -> Operation:
        model = experiment.model
        if not experiment.plan.evaluate:
            model = self._aggregator.final_model(state, experiment)
        return ExperimentCompleted(
            type="experiment.completed", experiment=action.experiment, model=model
        )

    def _say(self, state: State, ops: list[Operation]) -> None:
        receipts = self._sequencer.say(*ops).result()
        after = self._sequencer.view.state
        for op, receipt in zip(ops, receipts, strict=True):
            name = getattr(op, "experiment", None)
            if receipt.applied:
                _log.info("said", op=op.type, experiment=name, index=receipt.index)
            else:
                _log.warning("void", op=op.type, reason=receipt.reason, index=receipt.index)
            if name is None:
                continue
            if not receipt.applied and after.experiments[name] is state.experiments.get(name):
                self._held[name] = after.experiments[name]
            if after.experiments[name].ended:
                self._aggregator.forget(name)

    def _is_held(self, experiment: Experiment) -> bool:
        """Whether what we last said of an experiment was void, and nothing happened to it since."""
        held = self._held.get(experiment.id)
        if held is None:
            return False
        if held is experiment:
            return True
        del self._held[experiment.id]
        return False


def _closed(
    experiment: str, current: OpenRound, reason: Literal["quorum_missed", "shares_missing"]
) -> RoundClosed:
    return RoundClosed(
        type="round.closed",
        experiment=experiment,
        round=current.number,
        attempt=current.attempt,
        reason=reason,
    )
