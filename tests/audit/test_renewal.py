"""Promises that renew, as an auditor sees them: every period judged, all together shown, nothing called lifetime."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from audit.console.app import create_app
from audit.console.render import certificate_html, data_use_html
from audit.reports.budget import cell_budget, dataset_budget
from audit.reports.certificate import certificate
from audit.reports.data_use import data_use_report
from audit.reports.periods import lives, renewal
from audit.reports.privacy_events import privacy_events
from audit.standalone.recompute_budget import recompute
from audit.verification.charges import charged
from audit.verification.check_periods import newest
from audit.verification.sources import close_copies, open_copies
from audit.verification.verify import Verification, verify
from consilium.actions.audit.budget_report import budget_csv, budget_report
from consilium.summaries.datasets import dataset_budget_summary, refresh_lines
from ledger.entries.operations.log import TimeNoted
from ledger.experiment.privacy_spec import Baseline, Privacy
from ledger.rules.state import replace
from privacy.filters import Spend
from privacy.periods import DAY_MS
from tests.audit.conftest import World, write
from tests.federation import COORDINATOR, Federation

MONTH = 30 * DAY_MS
CELL = "basel-all"


@pytest.fixture(scope="module")
def federation() -> Federation:
    """Basel's promise of 5 renews each month: 4 were spent in the first, 4 in the third, and 4 more wait."""
    federation = Federation.found(("basel", "bern", "chur"))
    federation.register_dataset("basel", refresh_days=30)
    for hospital in ("bern", "chur"):
        federation.register_dataset(hospital, epsilon=50.0)
    datasets = sorted(federation.state.datasets)
    privacy = Privacy(epsilon=Decimal(4), baseline=Baseline(rounds=2))
    for number, months in enumerate((0, 2)):
        federation.now_ms += months * MONTH
        federation.say(COORDINATOR, TimeNoted(type="time.noted"))
        spec = federation.spec(datasets, name=f"ran-{number}", privacy=privacy)
        experiment = federation.propose(spec)
        for dataset in datasets:
            federation.approve(experiment, dataset)
        federation.play(experiment)
    return federation


@pytest.fixture(scope="module")
def written(federation: Federation, tmp_path_factory: pytest.TempPathFactory) -> World:
    experiment = max(federation.state.experiments)
    return write(federation, experiment, tmp_path_factory.mktemp("renewed"))


@pytest.fixture(scope="module")
def found(federation: Federation, written: World) -> Verification:
    return verified(written.bundle, federation)


def verified(path: Path, federation: Federation) -> Verification:
    copies = open_copies(str(path))
    try:
        return verify(copies[0], trust=federation.id)
    finally:
        close_copies(copies)


def test_every_period_is_judged_by_itself(found: Verification) -> None:
    assert not found.report.refuted
    (said,) = [c.detail for c in found.report.checks if c.step == 11 and CELL in c.detail]
    assert "in each of 2 periods of 30 days, of 5 promised to each at delta 1e-05" in said
    assert "all together epsilon" in said
    assert "at delta 2e-05" in said
    assert "lifetime" not in said


def test_a_report_is_of_the_period_under_way_and_shows_all_together(found: Verification) -> None:
    budget = cell_budget(found.history, found.state, CELL)
    renews = budget.renewal
    assert renews is not None
    assert (renews.days, renews.number, renews.used) == (30, 2, 2)
    assert renews.next_ms - renews.began_ms == MONTH
    assert budget.epsilon <= 4
    assert budget.epsilon < renews.epsilon_together < renews.most_together <= 10
    assert renews.delta_together == pytest.approx(2e-5)
    (experiment,) = {event.experiment for event in budget.events}
    assert found.history.experiments[experiment].terms.name == "ran-1"
    assert dataset_budget(found.history, found.state, "basel-heart").worst == budget
    other = cell_budget(found.history, found.state, "bern-all")
    assert other.renewal is None
    assert len({event.experiment for event in other.events}) == 2


def test_the_summary_says_when_it_renews_and_never_lifetime(found: Verification) -> None:
    state = found.state
    summary = dataset_budget_summary(state, state.datasets["basel-heart"])
    (cell,) = summary["cells"]
    refresh = cell["refresh"]
    assert refresh is not None
    assert refresh["periods_used"] == 2
    assert refresh["next_refresh"] > refresh["period_began"]
    (line,) = refresh_lines(cell)
    assert "It is no lifetime promise: in 2 periods" in line
    (other,) = dataset_budget_summary(state, state.datasets["bern-heart"])["cells"]
    assert other["refresh"] is None
    assert refresh_lines(other) == []


def test_a_strangers_auditor_recomputes_each_period(found: Verification) -> None:
    listed = privacy_events(found)
    names = [cell["cell"] for cell in listed["cells"]]
    assert names == [f"{CELL}, period 1", f"{CELL}, period 3", "bern-all", "chur-all"]
    result = recompute(listed)
    assert result["faults"] == []
    assert result["events"] == len(listed["events"])


def test_a_cell_whose_newest_sums_were_lowered_is_refuted(
    found: Verification, federation: Federation
) -> None:
    held = found.state.cells[CELL]
    mine = [one for one in charged(found.history) if one.cell == CELL]
    assert list(newest(found.history, CELL, held, mine)) == []
    lower = replace(held, spend=Spend(held.spend.g - 1, held.spend.r))
    (check,) = newest(found.history, CELL, lower, mine)
    assert check.verdict == "refuted"
    assert "in period 3" in check.detail


def test_a_reservation_lives_from_its_period_to_that_of_its_settlement(found: Verification) -> None:
    periods = found.state.cells[CELL].periods
    assert periods is not None
    spans = {(life.first, life.last) for life in lives(found.history, periods).values()}
    assert spans == {(0, 0), (2, 2)}
    later = renewal(found.state.cells[CELL], found.state.log_time + 5 * MONTH)
    assert later is not None
    assert (later.number, later.used) == (7, 2)


def test_certificate_and_data_use_show_the_period_and_all_together(found: Verification) -> None:
    experiment = max(found.history.experiments.values(), key=lambda e: e.said.index)
    made = certificate(found, experiment.id, now_ms=1, by="a test")
    by_name = {cell.cell: cell for cell in made.cells}
    renews = by_name[CELL].renewal
    assert renews is not None
    assert (renews.days, renews.period, renews.periods_used) == (30, 3, 2)
    assert by_name[CELL].lifetime_epsilon is by_name[CELL].lifetime_limit is None
    assert by_name[CELL].period_limit == 5
    assert by_name["bern-all"].lifetime_limit == 50
    assert any("holds for each period of 30 days, and not for ever" in line for line in made.limits)
    page = certificate_html(made)
    assert "All 2 periods in which anything was used come together to" in page
    report = data_use_report(found, "basel-heart", now_ms=1, by="a test")
    (cell,) = report.privacy.cells
    assert cell.renewal == renews
    page = data_use_html(report)
    assert "the next refresh is" in page
    assert "limit for each 30 days" in page
    assert "lifetime limit" not in page


def test_the_console_and_the_budget_report_say_what_renews(
    found: Verification, federation: Federation, written: World
) -> None:
    app = create_app(str(written.home), trust=federation.id, interval_s=60)
    with TestClient(app, base_url="http://localhost") as client:
        page = client.get("/datasets/basel-heart").text
    assert "Privacy budget, for 30 days at a time" in page
    assert "lifetime" not in page
    lines = {cell.cell: cell for cell in budget_report(found, "a test").cells}
    assert lines[CELL].refresh_days == 30
    assert lines["bern-all"].refresh_days is None
    assert "refresh_days" in budget_csv(budget_report(found, "a test")).splitlines()[0]
