"""The reports hold what happened, and the same in JSON as on the page."""

from __future__ import annotations

import hashlib
import html
import re
from decimal import Decimal
from itertools import permutations
from pathlib import Path

import numpy as np
import orjson
import pytest

from audit.console.render import contribution_html, data_use_html
from audit.errors import NotInLedger
from audit.reports.budget import dataset_budget, how_many_more
from audit.reports.contribution.report import contribution_report
from audit.reports.contribution.shapley import (
    MAX_PLAYERS,
    coalition_value,
    gram_matrix,
    play_round,
    shapley_values,
)
from audit.reports.data_use import data_use_report
from audit.reports.standing import ERASED, report_bytes, sealed_json
from audit.verification.sources import open_copies
from audit.verification.verify import Verification, verify
from ledger.entries.cards import Contact, DatasetCard, open_card, seal_card
from ledger.entries.operations.audits import LedgerReviewed
from ledger.entries.operations.datasets import DatasetRegistered, DatasetWithdrawn
from ledger.entries.operations.experiments import ExperimentRefused, ModelDownloaded
from ledger.entries.operations.members import CardErased
from ledger.entries.operations.rounds import UpdateSubmitted
from ledger.errors import MalformedInput
from ledger.experiment.privacy_spec import Baseline, Privacy
from ledger.formats.keys import SigningKey
from ledger.formats.keys import verify as verify_bytes
from ledger.formats.value import replace
from tests.audit.conftest import World, write
from tests.federation import COORDINATOR, RESEARCHER, Federation, node_of, steward_of

NOW_MS = 1_767_300_000_000


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Verification:
    """One experiment that ran, one refused by basel, one review, one download, one withdrawal."""
    federation = Federation.found()
    for hospital, rows in (("basel", 300), ("bern", 300), ("chur", 120), ("davos", 600)):
        federation.register_dataset(hospital, declared_rows=rows)
    datasets = sorted(federation.state.datasets)
    privacy = Privacy(epsilon=Decimal(1), baseline=Baseline(rounds=5))
    ran = federation.propose(federation.spec(datasets, name="ran", privacy=privacy, rounds=3))
    for dataset in datasets:
        federation.approve(ran, dataset)
    federation.play(ran)
    taken = ModelDownloaded(type="model.downloaded", experiment=ran, reader=RESEARCHER)
    federation.say(COORDINATOR, taken)
    asked = federation.propose(federation.spec(datasets, name="asked", privacy=privacy))
    federation.say(
        steward_of("basel"),
        ExperimentRefused(
            type="experiment.refused", experiment=asked, dataset="basel-heart", reason="purpose"
        ),
    )
    federation.say(
        steward_of("bern"),
        LedgerReviewed(
            type="ledger.reviewed",
            size=federation.log.size,
            root=federation.log.tree.root().hex(),
            finding="in_order",
        ),
    )
    federation.say(
        node_of("chur"),
        DatasetWithdrawn(type="dataset.withdrawn", dataset="chur-heart", reason="consent"),
    )
    federation.finalize()
    home = write(federation, ran, tmp_path_factory.mktemp("reports")).home
    (copy,) = open_copies(str(home))
    return verify(copy, trust=federation.id)


def test_a_data_use_report_has_every_use_outflow_decision_and_model(found: Verification) -> None:
    report = data_use_report(found, "basel-heart", now_ms=NOW_MS, by="a test")
    assert [(use.name, use.outcome) for use in report.uses] == [
        ("ran", "model released"),
        ("asked", "refused"),
    ]
    ran = report.uses[0]
    assert (ran.rounds, ran.rounds_trained, ran.rounds_measured, ran.times_asked) == (
        "3/3, evaluation, baseline",
        3,
        2,
        5,
    )
    assert [total.count for total in report.outflow_totals] == [3, 2]
    assert {outflow.counted for outflow in report.outflows} == {"in the sum"}
    assert [item.why for item in report.decisions_against] == ["the purpose was not accepted"]
    assert report.models[0].rounds_with_dataset == 3
    assert RESEARCHER in report.models[0].downloads[0]
    assert [review.finding for review in report.reviews] == ["in order"]
    assert report.header.standing.anchored
    assert report.header.standing.checkpoint.startswith("consilium/")


def test_a_reports_epsilon_is_the_state_s_and_pld_s_and_below_the_limit(
    found: Verification,
) -> None:
    report = data_use_report(found, "basel-heart", now_ms=NOW_MS, by="a test")
    (cell,) = report.privacy.cells
    assert cell.epsilon == pytest.approx(cell.epsilon_pld, abs=2e-3)
    assert 0 < report.privacy.epsilon <= report.privacy.limit
    assert report.privacy.more_like_last is not None


def test_how_many_more_is_exactly_what_the_filter_admits(found: Verification) -> None:
    budget = dataset_budget(found.history, found.state, "basel-heart")
    experiment = found.history.experiments[str(budget.last)]
    more = how_many_more(found.state, experiment, "basel-heart")
    cell = found.state.cells["basel-all"]
    charge = experiment.held["basel-heart"].terms.charges[0]
    limit = cell.terms.limit
    assert more == max(
        (limit.g_max - cell.spend.g) // charge.g, (limit.r_max - cell.spend.r) // charge.r
    )


def test_a_withdrawn_dataset_says_so_and_keeps_its_models(found: Verification) -> None:
    report = data_use_report(found, "chur-heart", now_ms=NOW_MS, by="a test")
    assert "consent was withdrawn" in report.dataset.withdrawn
    assert report.decisions_against[-1].what == "withdrew the dataset"
    assert report.models


def test_an_unknown_dataset_is_refused_with_those_there_are(found: Verification) -> None:
    with pytest.raises(NotInLedger, match="basel-heart, bern-heart"):
        data_use_report(found, "ulm-heart", now_ms=NOW_MS, by="a test")


def test_the_page_holds_what_the_json_holds(found: Verification) -> None:
    for report, page in (
        (r := data_use_report(found, "basel-heart", now_ms=NOW_MS, by="a test"), data_use_html(r)),
        (c := contribution_of(found), contribution_html(c)),
    ):
        text = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page))).casefold()
        for value in strings(orjson.loads(report_bytes(report))):
            said = value.casefold()
            shown = said in text or said.replace("_", " ") in text or said.replace("-", " ") in text
            assert shown or (len(said) > 14 and said[:8] in text), value


def test_the_page_has_one_line_for_each_use_and_then_a_line_for_each_update(
    found: Verification,
) -> None:
    report = data_use_report(found, "basel-heart", now_ms=NOW_MS, by="a test")
    page = data_use_html(report)
    uses = page.split('id="uses"')[1].split("</table>")[0]
    rows = [row for row in uses.split("<tr>") if 'scope="row"' in row]
    assert len(rows) == len(report.uses)
    for use, row in zip(report.uses, rows, strict=True):
        assert use.name in row
        assert use.asked_by.handle in row
        assert use.purpose in row
        assert f">{use.rounds}</td>" in row
    each = page.split('id="each"')[1].split("</table>")[0]
    rows = [row for row in each.split("<tr>") if 'scope="row"' in row]
    assert len(rows) == len(report.outflows)
    for outflow, row in zip(report.outflows, rows, strict=True):
        assert outflow.sha256 in row
        assert f"#{outflow.entry}<" in row
        assert outflow.counted in row


def test_a_standalone_page_needs_nothing_from_elsewhere(found: Verification) -> None:
    page = data_use_html(data_use_report(found, "basel-heart", now_ms=NOW_MS, by="a test"))
    assert "<script" not in page
    assert not re.search(r'(?:href|src)="', page)


def test_a_sealed_report_is_signed_over_its_canonical_bytes(found: Verification) -> None:
    report = data_use_report(found, "basel-heart", now_ms=NOW_MS, by="a test")
    key = SigningKey.generate()
    whole = orjson.loads(sealed_json(report, key))
    data = orjson.dumps(whole["report"], option=orjson.OPT_SORT_KEYS)
    assert hashlib.sha256(data).hexdigest() == whole["sha256"]
    signature = bytes.fromhex(whole["signature"]["signature"])
    assert verify_bytes(key.public, "report", data, signature)
    assert orjson.loads(sealed_json(report))["signature"] is None


def test_two_readers_of_one_checkpoint_derive_the_same_report(world: World) -> None:
    reports = []
    for at in (world.home, world.bundle):
        (copy,) = open_copies(str(at))
        reports.append(
            data_use_report(verify(copy), "basel-heart", now_ms=NOW_MS, by="a test").model_dump()
        )
        copy.close()
    assert reports[0] == reports[1]


def test_a_contribution_report_has_shapley_values_that_add_up(found: Verification) -> None:
    report = contribution_of(found)
    shares = [site.shapley.value for site in report.sites]
    assert sum(share for share in shares if share is not None) == pytest.approx(1.0)
    assert {(site.rounds, site.times_asked) for site in report.sites} == {
        ("3/3, evaluation, baseline", 5)
    }
    assert set(report.methods) >= {"shapley", "leave_one_out", "norm_share", "lift"}
    by_round = np.array([[value for _, value in site.shapley_by_round] for site in report.sites])
    assert by_round.shape == (4, 3)
    assert by_round.sum(axis=0) == pytest.approx([1.0, 1.0, 1.0])


def test_a_site_under_fifty_declared_test_patients_has_no_measure_of_its_own(
    found: Verification,
) -> None:
    chur = next(site for site in contribution_of(found).sites if site.dataset == "chur-heart")
    assert chur.declared_test == 36
    assert chur.quality.federated is None
    assert "under 50 declared test patients (36)" in (chur.quality.reason or "")


def test_missing_updates_give_no_figures_but_a_reason(world: World, tmp_path: Path) -> None:
    home = world.copy_home(tmp_path / "home")
    for entry in world.federation.entries():
        if isinstance(entry.body.op, UpdateSubmitted):
            name = entry.body.op.update.sha256
            (home / "blobs" / name[:2] / name[2:4] / name).unlink(missing_ok=True)
    (copy,) = open_copies(str(home))
    report = contribution_report(verify(copy), world.experiment, now_ms=NOW_MS, by="a test")
    copy.close()
    assert report.sites[0].shapley.value is None
    assert "not all in this copy" in (report.sites[0].shapley.reason or "")


def test_shapley_values_are_those_of_the_definition() -> None:
    generator = np.random.default_rng(7)
    updates = [generator.integers(-1000, 1000, 6) for _ in range(5)]
    gram = gram_matrix(updates)
    values = shapley_values(gram)
    assert sum(values) == pytest.approx(coalition_value(gram, 31))
    by_hand = np.zeros(5)
    orders = 0
    for order in permutations(range(5)):
        orders += 1
        before, mask = 0.0, 0
        for player in order:
            mask |= 1 << player
            after = coalition_value(gram, mask)
            by_hand[player] += after - before
            before = after
    assert values == pytest.approx(tuple(by_hand / orders))


def test_equal_hospitals_share_equally_and_a_silent_one_gets_nothing() -> None:
    one = np.array([3, -4, 0], dtype=np.int64)
    game = play_round([one, one, np.zeros(3, dtype=np.int64)])
    assert game.shapley == pytest.approx((0.5, 0.5, 0.0))
    assert game.norm_share == pytest.approx((0.5, 0.5, 0.0))
    assert game.leave_one_out == pytest.approx((0.0, 0.0, 0.0))


def test_above_ten_hospitals_exact_values_are_refused() -> None:
    updates = [np.eye(1, 12, i, dtype=np.int64)[0] for i in range(MAX_PLAYERS + 1)]
    assert play_round(updates).shapley == ()
    with pytest.raises(ValueError, match="11 players"):
        shapley_values(gram_matrix(updates))


def test_a_card_opens_its_commitment_and_no_other() -> None:
    card = DatasetCard(title="Herz", controller=Contact(name="Universitätsspital"))
    sealed = seal_card(card)
    assert hashlib.sha256(sealed.blob).hexdigest() == sealed.commitment
    assert open_card(sealed.blob, sealed.commitment, DatasetCard) == card
    with pytest.raises(MalformedInput, match="do not open the commitment"):
        open_card(sealed.blob, seal_card(card).commitment, DatasetCard)


def test_a_card_is_shown_and_once_erased_the_report_says_so(tmp_path: Path) -> None:
    federation = Federation.found()
    federation.register_dataset("basel")
    terms = federation.state.datasets["basel-heart"].terms
    sealed = seal_card(DatasetCard(legal_basis="consent", disclosure="use"))
    federation.blobs[sealed.commitment] = sealed.blob
    again = replace(terms, card=sealed.commitment)
    assert isinstance(again, DatasetRegistered)
    federation.say(node_of("basel"), again)
    federation.finalize()
    home = write(federation, "", tmp_path).home
    (copy,) = open_copies(str(home))
    shown = data_use_report(verify(copy), "basel-heart", now_ms=NOW_MS, by="a test")
    copy.close()
    assert shown.dataset.legal_basis == "consent"
    assert shown.dataset.disclosure_class == "use inside the hospital"
    next(home.rglob(sealed.commitment)).unlink()
    (copy,) = open_copies(str(home))
    erased = verify(copy)
    report = data_use_report(erased, "basel-heart", now_ms=NOW_MS, by="a test")
    copy.close()
    assert report.dataset.legal_basis == ERASED
    assert erased.report.exit_code == 0
    assert erased.report.verdict_of(13) == "not_checkable"


def test_a_card_that_its_owner_erased_is_not_shown_where_a_copy_keeps_it(tmp_path: Path) -> None:
    federation = Federation.found()
    federation.register_dataset("basel")
    terms = federation.state.datasets["basel-heart"].terms
    sealed = seal_card(DatasetCard(legal_basis="consent"))
    federation.blobs[sealed.commitment] = sealed.blob
    federation.say(node_of("basel"), replace(terms, card=sealed.commitment))
    erasure = CardErased(type="card.erased", card=sealed.commitment)
    index = federation.say(steward_of("basel"), erasure).index
    federation.finalize()
    home = write(federation, "", tmp_path).home
    for kept in (True, False):
        if not kept:
            next(home.rglob(sealed.commitment)).unlink()
        (copy,) = open_copies(str(home))
        found = verify(copy)
        report = data_use_report(found, "basel-heart", now_ms=NOW_MS, by="a test")
        copy.close()
        assert report.dataset.legal_basis == ERASED
        assert found.report.exit_code == 0
        said = [c.detail for c in found.report.checks if "erased by their owners" in c.detail]
        assert len(said) == 1
        assert f"by entry {index}" in said[0]
        assert ("this copy still has it" in said[0]) == kept


def contribution_of(found: Verification):  # type: ignore[no-untyped-def]
    first = next(iter(found.history.experiments))
    return contribution_report(found, first, now_ms=NOW_MS, by="a test")


def strings(value: object) -> list[str]:
    """The short texts of a JSON value that a page must show."""
    if isinstance(value, dict):
        return [text for item in value.values() for text in strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) and value and "\n" not in value else []
