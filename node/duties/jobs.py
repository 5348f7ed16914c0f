"""What the training thread is asked to do for a round: all that a job needs, gathered in one place.

Read in the thread that owns the copy of the log: the plan's part, the registered file, the blocks it
charges, and whether the vector made before may serve again. Read in the training thread, when the round's
model is there: what each patient may still spend.

Promise: nothing is charged, drawn or said here. What the round costs each patient is recorded by the
task's ``on_charges``, before noise is drawn.
"""

from __future__ import annotations

from pathlib import Path

from ledger.entries.operations.plans import SitePlan
from ledger.experiment.noise_shares import site_in_round
from ledger.formats.strict import canonical
from ledger.rules.blocks import ALL
from ledger.rules.experiment_state import OpenRound
from ledger.rules.state import State
from node.duties.duty import Train
from node.duties.individual import PatientAccounts
from node.duties.masking import is_spent
from node.register.patients import PATIENTS
from node.register.private import PrivateRegister
from node.training.process.frames import Job
from node.training.process.trainer import Task


def training_task(
    duty: Train,
    state: State,
    site: SitePlan,
    current: OpenRound,
    *,
    spec: bytes,
    private: PrivateRegister,
    home: Path,
    hospital_key: bytes,
) -> Task:
    """The task of a round's noisy vector at one dataset.

    Args:
        duty: the round.
        state: in which it is open.
        site: what the plan asks of the dataset.
        current: the experiment's open round.
        spec: the experiment's document, canonical, checked against its plan.
        private: the hospital's register, which holds the dataset.
        home: where the patients' blocks are kept.
        hospital_key: divides patients, and opens their accounts.
    """
    key = (duty.experiment, duty.dataset, duty.round)
    plan = state.experiments[duty.experiment].plan
    site = site_in_round(plan, site)
    record = private.view.datasets[duty.dataset]
    blocks = blocks_of(state, site)
    patients = PatientAccounts(private, hospital_key)

    def job(model: bytes) -> Job:
        return Job(
            kind=duty.kind,
            round=duty.round,
            spec=spec,
            schema_document=record.schema_document,
            site=canonical(site),
            model=model,
            path=record.path,
            sha256=record.sha256,
            split_key=hospital_key,
            blocks=blocks,
            patients=str(home / PATIENTS) if blocks else "",
            snapshot=record.snapshot,
            allowance=patients.allowance(key[:2]) if duty.kind == "train" else b"",
        )

    return Task(
        *key,
        plan=plan,
        site=site,
        model=plan.initial_model if duty.kind == "baseline" else current.model,
        job=job,
        fresh=is_spent(current, private.view.masked_in.get(key)),
        on_charges=patients.recorder(key[:2], duty.round),
    )


def blocks_of(state: State, site: SitePlan) -> tuple[str, ...]:
    """The calendar blocks that a plan charges at a site, sorted; none where all time is one."""
    charged = {charge.cell for release in site.releases for charge in release.charges}
    return tuple(sorted({state.cells[cell].terms.block for cell in charged} - {ALL}))
