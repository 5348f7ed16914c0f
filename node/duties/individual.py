"""Patients' own accounts around a round: what each may spend before it, what it cost each after it.

The training process is told what every patient may spend and tells back what the round cost each. Both
pass through here alone, in the training thread; between rests nothing but the sealed record in the
private register. Nothing of it is logged, shown or sent.

Meanwhile the thread that owns the copy of the log may charge all patients for what a restored register had
forgotten. What a round may cost was worked out before that: so it is compared with what is left when its
costs are recorded, and a round that was made with more is forbidden to go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ledger.entries.operations.plans import SitePlan
from node.data.patient_spend import Allowance, PatientSpend
from node.errors import AllowanceStale, WorkerMisbehaved
from node.register.accounts import Key
from node.register.individual import (
    LIFETIME,
    HeldForPatients,
    account_of,
    open_spend,
    seal_spend,
)
from node.register.private import PrivateRegister
from privacy.filters import g_step


def steps_of_patients(site: SitePlan) -> Mapping[str, int]:
    """What one sum at the clip norm costs a patient, by cell whose patients have accounts of their own."""
    return {
        charge.cell: g_step(release.sensitivity, release.noise_sd)
        for release in site.releases
        if release.engine == "individual"
        for charge in release.charges
    }


class PatientAccounts:
    """The accounts of a hospital's patients.

    Args:
        private: holds the sealed records.
        hospital_key: opens them.
    """

    def __init__(self, private: PrivateRegister, hospital_key: bytes) -> None:
        self._private = private
        self._hospital_key = hospital_key
        self._given: dict[Key, tuple[int, int]] = {}

    def allowance(self, key: Key) -> bytes:
        """What each patient may spend in the next round of a reservation, encoded; empty where none has one.

        Raises:
            PatientSpendUnreadable: a record does not open.
        """
        held = self._private.patients.held_by(key)
        if not held:
            return b""
        promise, experiment = self._given[key] = self._left_to_all(held)
        return Allowance(
            promise=promise,
            experiment=experiment,
            lifetime=self._open(LIFETIME),
            here=self._open(account_of(key)),
        ).encode()

    def recorder(self, key: Key, round_number: int) -> Callable[[bytes], None]:
        """Records what the round cost each patient; what it raises forbids the round to go on.

        It raises ``AllowanceStale`` where all patients were charged for something since ``allowance``.
        """

        def record(data: bytes) -> None:
            cost = PatientSpend.decode(data)
            held = self._private.patients.held_by(key)
            given = self._given.pop(key, None)
            if given is not None and held:
                now = self._left_to_all(held, without=round_number)
                if any(left < before for left, before in zip(now, given, strict=True)):
                    raise AllowanceStale
            most = min((one.step_g for one in held), default=0)
            if len(cost.spent) and int(cost.spent.max()) > most:
                raise WorkerMisbehaved("a charge to a patient above that of the clip norm")
            accounts = (LIFETIME, account_of(key))
            records = {
                account: seal_spend(self._hospital_key, account, self._open(account).plus(cost))
                for account in accounts
            }
            self._private.patients.take_back(key, round_number, records)

        return record

    def _left_to_all(
        self, held: Sequence[HeldForPatients], without: int | None = None
    ) -> tuple[int, int]:
        """What promise and experiment leave to a patient who has spent nothing of one's own.

        Args:
            held: by the reservation, for each cell.
            without: a round whose own charge is not counted.
        """
        own = {one.cell: one.pending_g if one.pending_round == without else 0 for one in held}
        view = self._private.view
        cells = [view.cells[one.cell] for one in held]
        promise = min(c.limit.g_max - c.spend.g + own[c.terms.cell] for c in cells)
        experiment = min(one.cap_g - one.base_g + own[one.cell] for one in held)
        return max(0, promise), max(0, experiment)

    def _open(self, account: str) -> PatientSpend:
        return open_spend(self._hospital_key, account, self._private.patients.record_of(account))
