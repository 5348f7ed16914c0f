"""An experiment's life in the fold: a sound plan, each hospital's word, an end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import asdict

from ledger.entries.operations.audits import PrivacyAudited
from ledger.entries.operations.datasets import CellCharge, CellUse, DatasetWithdrawn
from ledger.entries.operations.experiments import (
    ExperimentApproved,
    ExperimentCompleted,
    ExperimentProposed,
    ExperimentRefused,
    ExperimentStopped,
    ModelDownloaded,
    ModelReleased,
)
from ledger.entries.operations.plans import Plan, Release
from ledger.entries.operations.values import MAX_INT, BlobRef
from ledger.formats.value import replace
from ledger.rules.experiments import last_round, totals
from ledger.rules.state import State
from tests.federation import COORDINATOR, RESEARCHER, node_of, steward_of
from tests.ledger.facts import (
    HOSPITALS,
    aggregate_op,
    base,
    cell_of,
    dataset_of,
    experiment_of,
    fold,
    open_op,
    proposal,
    reserve_op,
    submit_op,
)

BASEL = node_of("basel")


def with_release(op: ExperimentProposed, at: int, **changed: Any) -> ExperimentProposed:
    """The proposal with one release of the first site changed."""
    site = op.plan.sites[0]
    releases = list(site.releases)
    releases[at] = replace(releases[at], **changed)
    return with_releases(op, tuple(releases))


def with_releases(op: ExperimentProposed, releases: tuple[Release, ...]) -> ExperimentProposed:
    site = replace(op.plan.sites[0], releases=releases)
    return with_plan(op, sites=(site, *op.plan.sites[1:]))


def with_plan(op: ExperimentProposed, **changed: Any) -> ExperimentProposed:
    plan = Plan(**asdict(replace(op.plan, **changed)))
    return replace(op, plan=plan)


def cheaper(op: ExperimentProposed, lane: str) -> ExperimentProposed:
    charge = op.plan.sites[0].releases[0].charges[0]
    less = replace(charge, **{lane: getattr(charge, lane) - 1})
    return with_release(op, 0, charges=(less,))


def dearer(op: ExperimentProposed) -> ExperimentProposed:
    charge = op.plan.sites[0].releases[0].charges[0]
    return with_release(op, 0, charges=(replace(charge, g=MAX_INT),))


BAD_PLANS: dict[str, Callable[[ExperimentProposed], ExperimentProposed]] = {
    "a step that costs less in lane G than its noise": lambda op: cheaper(op, "g"),
    "a step that costs less in lane R than its noise": lambda op: cheaper(op, "r"),
    "fewer steps than rounds": lambda op: with_release(op, 0, steps=2),
    "more evaluations than one": lambda op: with_release(op, 1, steps=2),
    "another sensitivity than was charged": lambda op: with_release(op, 0, sensitivity=2),
    "less noise than was charged": lambda op: with_release(op, 0, noise_sd=1),
    "a cell that is not the dataset's": lambda op: with_release(
        op, 0, charges=(CellCharge(cell="bern-all", g=MAX_INT, r=MAX_INT),)
    ),
    "a cell charged twice": lambda op: with_release(
        op, 0, charges=op.plan.sites[0].releases[0].charges * 2
    ),
    "no charge for the evaluation": lambda op: with_releases(
        op, (op.plan.sites[0].releases[0], *op.plan.sites[0].releases[2:])
    ),
    "one purpose twice": lambda op: with_releases(
        op, (*op.plan.sites[0].releases[:3], op.plan.sites[0].releases[0])
    ),
    "a dataset twice": lambda op: with_plan(op, sites=(op.plan.sites[0],) * 2),
    "a quorum of more than there are": lambda op: with_plan(op, quorum=3),
    "a baseline without an evaluation": lambda op: with_plan(op, evaluate=False),
    "a sum that no integer of ours holds": dearer,
}


@pytest.mark.parametrize("change", BAD_PLANS.values(), ids=BAD_PLANS.keys())
def test_a_plan_that_does_not_fit_is_void(
    change: Callable[[ExperimentProposed], ExperimentProposed],
) -> None:
    state = base()
    good = proposal(state, HOSPITALS)
    fold(state, RESEARCHER, change(good), void="plan_invalid")
    fold(state, RESEARCHER, good)


def test_a_plan_is_for_datasets_as_they_are_registered() -> None:
    state = base()
    op = proposal(state, HOSPITALS)
    site = replace(op.plan.sites[0], dataset="chur-heart")
    fold(state, RESEARCHER, with_plan(op, sites=(site,), quorum=1), void="unknown_dataset")
    anew = fold(state, BASEL, dataset_of("basel", snapshot="5" * 64))
    fold(anew, RESEARCHER, op, void="dataset_changed")
    gone = DatasetWithdrawn(type="dataset.withdrawn", dataset="basel-heart", reason="other")
    fold(fold(state, BASEL, gone), RESEARCHER, op, void="dataset_withdrawn")


def test_a_release_is_charged_to_the_cells_of_its_own_use() -> None:
    state = base()
    for half in ("train", "test"):
        state = fold(
            state, node_of("bern"), cell_of("bern", half, "2030", half), void="cell_exists"
        )
    # A hospital whose only cell is one for training has none for the evaluation.
    only = replace(dataset_of("basel"), cells=(CellUse(cell="basel-all", use="train"),))
    state = fold(state, BASEL, only)
    op = proposal(state, ("basel",))
    fold(state, RESEARCHER, op, void="plan_invalid")


def test_a_sampled_release_is_charged_in_lane_g_as_if_everybody_took_part() -> None:
    state = base()
    op = with_release(proposal(state, HOSPITALS), 0, sampling=2**31)
    fold(state, RESEARCHER, cheaper(op, "r"))  # the curve is for nodes and auditors to judge
    fold(state, RESEARCHER, cheaper(op, "g"), void="plan_invalid")


def test_only_a_hospitals_own_stewards_speak_for_its_dataset() -> None:
    state = base()
    experiment = experiment_of(state)
    yes = ExperimentApproved(
        type="experiment.approved",
        experiment=experiment,
        dataset="basel-heart",
        epsilon_max_micro=1,
        until_ms=0,
    )
    no = ExperimentRefused(
        type="experiment.refused", experiment=experiment, dataset="basel-heart", reason="quality"
    )
    for op in (yes, no):
        fold(state, steward_of("bern"), op, void="not_owner")
        for changed, void in (
            ({"dataset": "chur-heart"}, "unknown_dataset"),
            ({"experiment": "0" * 64}, "unknown_experiment"),
        ):
            fold(state, steward_of("basel"), replace(op, **changed), void=void)
    state = fold(state, steward_of("basel"), no)
    now = state.experiments[experiment]
    assert set(now.approvals) == {"bern-heart"}
    assert now.refusals["basel-heart"].reason == "quality"
    state = fold(state, steward_of("basel"), yes)
    now = state.experiments[experiment]
    assert now.approvals["basel-heart"].epsilon_max_micro == 1
    assert not now.refusals


def test_nobody_approves_the_use_of_a_dataset_that_was_withdrawn() -> None:
    state = base()
    gone = DatasetWithdrawn(type="dataset.withdrawn", dataset="basel-heart", reason="other")
    state = fold(state, BASEL, gone)
    yes = ExperimentApproved(
        type="experiment.approved",
        experiment=experiment_of(state),
        dataset="basel-heart",
        epsilon_max_micro=1,
        until_ms=0,
    )
    fold(state, steward_of("basel"), yes, void="dataset_withdrawn")


def stop(experiment: str, reason: Any) -> ExperimentStopped:
    return ExperimentStopped(type="experiment.stopped", experiment=experiment, reason=reason)


def test_a_researcher_stops_its_own_and_the_coordinator_with_a_reason_of_its_own() -> None:
    state = base()
    experiment = experiment_of(state)
    fold(state, COORDINATOR, stop(experiment, "researcher"), void="not_permitted")
    fold(state, RESEARCHER, stop(experiment, "expired"), void="not_permitted")
    fold(state, COORDINATOR, stop(experiment, "quorum_lost"))
    state = fold(state, RESEARCHER, stop(experiment, "researcher"))
    assert state.experiments[experiment].reason == "researcher"
    fold(state, RESEARCHER, stop(experiment, "researcher"), void="experiment_ended")


def done() -> tuple[State, str]:
    """All rounds of the plan are over."""
    state = base()
    experiment = experiment_of(state)
    state = fold(state, BASEL, reserve_op(state, experiment))
    for number in range(1, last_round(state.experiments[experiment].plan) + 1):
        state = fold(state, COORDINATOR, open_op(state, experiment))
        used: dict[str, Any] = {
            "train": min(number, 2),
            "evaluate": 1,
            "baseline_train": 2,
            "baseline_evaluate": 1,
        }
        state = fold(state, BASEL, submit_op(state, experiment, **used))
        state = fold(state, COORDINATOR, aggregate_op(state, experiment))
    return state, experiment


def complete_op(state: State, experiment: str, model: BlobRef | None = None) -> ExperimentCompleted:
    named = model or state.experiments[experiment].model
    return ExperimentCompleted(type="experiment.completed", experiment=experiment, model=named)


def test_an_experiment_is_completed_after_its_last_round_by_the_model_that_was_evaluated() -> None:
    early = base()
    experiment = experiment_of(early)
    fold(early, COORDINATOR, complete_op(early, experiment), void="not_due")
    state, experiment = done()
    other = BlobRef(sha256="1" * 64, bytes=1)
    fold(state, COORDINATOR, complete_op(state, experiment, other), void="model_mismatch")
    state = fold(state, COORDINATOR, complete_op(state, experiment))
    fold(state, COORDINATOR, complete_op(state, experiment), void="experiment_ended")
    fold(state, RESEARCHER, stop(experiment, "researcher"), void="experiment_ended")


def test_a_model_is_released_once_and_downloads_are_noted_after_it() -> None:
    state, experiment = done()
    model = state.experiments[experiment].model
    release = ModelReleased(type="model.released", experiment=experiment, model=model)
    load = ModelDownloaded(type="model.downloaded", experiment=experiment, reader=RESEARCHER)
    fold(state, COORDINATOR, release, void="not_due")
    state = fold(state, COORDINATOR, complete_op(state, experiment))
    fold(state, COORDINATOR, load, void="not_released")
    other = replace(release, model=BlobRef(sha256="1" * 64, bytes=1))
    fold(state, COORDINATOR, other, void="model_mismatch")
    state = fold(state, COORDINATOR, release)
    assert state.experiments[experiment].status == "released"
    fold(state, COORDINATOR, release, void="repeated")
    fold(state, COORDINATOR, load)
    fold(state, COORDINATOR, replace(load, reader="nobody"), void="unknown_member")


def test_totals_add_up_steps_per_cell_in_order_of_cells() -> None:
    def release(steps: int, *charges: tuple[str, int, int]) -> Release:
        return Release(
            purpose="train",
            sensitivity=1,
            noise_sd=1,
            sampling=2**32,
            steps=steps,
            engine="exact",
            charges=tuple(CellCharge(cell=c, g=g, r=r) for c, g, r in charges),
        )

    summed = totals((release(3, ("b", 1, 10), ("a", 2, 20)), release(2, ("b", 5, 50))))
    assert summed == (CellCharge(cell="a", g=6, r=60), CellCharge(cell="b", g=13, r=130))


def test_a_finding_about_a_model_or_a_plan_names_one_that_is_there_and_agrees_with_itself() -> None:
    state, experiment = done()
    finding = PrivacyAudited(
        type="privacy.audited",
        kind="canary",
        data="synthetic",
        experiment=experiment,
        dataset=state.experiments[experiment].plan.sites[0].dataset,
        finding="as_proved",
        samples=1000,
        measured_ppm=200_000,
        low_ppm=100_000,
        high_ppm=300_000,
        bound_ppm=220_000,
        confidence_ppm=999_900,
        result=None,
    )
    who = node_of("bern")
    fold(state, who, finding)
    above = replace(finding, low_ppm=220_001)
    fold(state, who, above, void="finding_mismatch")
    fold(state, who, replace(above, finding="contradicts"))
    fold(state, who, replace(finding, low_ppm=300_001), void="finding_mismatch")
    fold(state, who, replace(finding, dataset="nobody"), void="unknown_dataset")
    fold(state, who, replace(finding, experiment="0" * 64), void="unknown_experiment")
    for kind in ("membership", "membership_rmia"):
        attack = replace(finding, kind=kind, dataset=None)
        fold(state, who, attack, void="not_released")
        guessed = replace(attack, low_ppm=220_001)
        fold(state, who, guessed, void="finding_mismatch")
    fold(state, RESEARCHER, finding, void="not_permitted")
