"""What was observed stands beside what is proven, in every report; and so does nothing."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import Any

import pytest

from audit.console.render import certificate_html, data_use_html
from audit.reports.certificate import certificate
from audit.reports.data_use import data_use_report
from audit.reports.observed import plan_of, proven_of, words_of
from audit.reports.proven import proven_mu
from audit.reports.sentences.log import _audited
from audit.verification.sources import close_copies, open_copies
from audit.verification.verify import Verification, verify
from ledger.entries.operations.audits import PrivacyAudited
from ledger.formats.value import replace
from privacy.curves import true_positive_rate
from tests.audit.conftest import World, write
from tests.federation import Federation, node_of

NOTHING = "Nothing observed yet"


def finding(**fields: Any) -> PrivacyAudited:
    said: dict[str, Any] = {
        "type": "privacy.audited",
        "kind": "residuals",
        "data": "synthetic",
        "experiment": None,
        "dataset": None,
        "finding": "as_proved",
        "samples": 18_432,
        "measured_ppm": 1_000_000,
        "low_ppm": 990_000,
        "high_ppm": 1_010_000,
        "bound_ppm": 1_000_000,
        "confidence_ppm": 950_000,
        "result": None,
    }
    return PrivacyAudited(**said | fields)


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Verification, str]]:
    federation = Federation.found()
    experiment = federation.start()
    federation.play(experiment)
    node = node_of("basel")
    plan = federation.experiment(experiment).plan
    mu = proven_mu(plan, plan.sites[0].releases[0])
    for _ in range(3):
        federation.say(node, finding())
    federation.say(
        node_of("bern"),
        finding(
            kind="canary",
            experiment=experiment,
            dataset="basel-heart",
            finding="contradicts",
            measured_ppm=round(3e6 * mu),
            low_ppm=round(2e6 * mu),
            high_ppm=round(4e6 * mu),
            bound_ppm=ceil(1e6 * mu),
            confidence_ppm=999_900,
        ),
    )
    federation.say(
        node,
        finding(
            kind="membership",
            experiment=experiment,
            measured_ppm=10_000,
            low_ppm=9000,
            bound_ppm=ceil(1e6 * true_positive_rate(mu, 0.01)),
        ),
    )
    for kind, said, stated in (("canary", "as_proved", 1000 * mu), ("one_run", "contradicts", 0)):
        federation.say(
            node_of("chur"),
            finding(
                kind=kind,
                experiment=experiment,
                dataset="basel-heart",
                finding=said,
                low_ppm=round(2e6 * mu),
                bound_ppm=round(1e6 * stated),
            ),
        )
    home = write(federation, experiment, tmp_path_factory.mktemp("audited")).home
    copies = open_copies(str(home))
    yield verify(copies[0]), experiment
    close_copies(copies)


def test_a_certificate_shows_contradictions_first_and_the_newest_of_each_kind(
    audited: tuple[Verification, str],
) -> None:
    found, experiment = audited
    made = certificate(found, experiment, now_ms=1, by="a test")
    assert [(one.kind, one.times, one.contradicts) for one in made.observed] == [
        ("canary", 1, True),
        ("one_run", 1, False),
        ("canary", 1, False),
        ("membership", 1, False),
        ("residuals", 3, False),
    ]
    page = certificate_html(made)
    assert "mu of at least" in page
    assert "against the proof" in page
    assert "the newest of 3" in page
    assert NOTHING not in page


def test_a_finding_held_against_another_bound_than_the_plan_s_says_nothing(
    audited: tuple[Verification, str],
) -> None:
    found, experiment = audited
    made = certificate(found, experiment, now_ms=1, by="a test")
    lies = [one for one in made.observed if one.who.startswith(node_of("chur"))]
    plan = found.history.experiments[experiment].plan
    mu = proven_mu(plan, plan.sites[0].releases[0])
    assert {(one.kind, one.verdict) for one in lies} == {
        ("canary", "misstated"),
        ("one_run", "misstated"),
    }
    assert {one.proven for one in made.observed if one.kind == "canary"} == {f"mu {mu:.4f}"}
    assert "held against another bound" in certificate_html(made)
    ops = [op for said, op in found.history.audits if said.author == node_of("chur")]
    for op in ops:
        told = _audited("chur", op, found.history).sentence
        assert "it was held against another bound, and says nothing" in told


def test_a_data_use_report_shows_what_concerns_its_dataset(
    audited: tuple[Verification, str],
) -> None:
    found, _ = audited
    basel = data_use_report(found, "basel-heart", now_ms=1, by="a test")
    bern = data_use_report(found, "bern-heart", now_ms=1, by="a test")
    assert {one.kind for one in basel.observed} == {"canary", "one_run", "membership", "residuals"}
    assert {one.kind for one in bern.observed} == {"membership"}
    assert "99.99 %" in data_use_html(basel)


def test_where_nobody_looked_every_report_says_so(world: World) -> None:
    copies = open_copies(str(world.home))
    found = verify(copies[0])
    made = certificate(found, world.experiment, now_ms=1, by="a test")
    use = data_use_report(found, "basel-heart", now_ms=1, by="a test")
    assert made.observed == use.observed == ()
    assert NOTHING in certificate_html(made)
    assert NOTHING in data_use_html(use)
    close_copies(copies)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "noise of 100.00 % (99.00 to 101.00 %) of the planned deviation"),
        ({"kind": "known_answers", "samples": 54}, "54 known answers"),
        ({"kind": "canary", "dataset": "d"}, "ran d training 18,432 times"),
        ({"kind": "one_run"}, "a smoke alarm only"),
        ({"kind": "membership", "data": "public_twins"}, "(LiRA) with 18,432 public twins records"),
        ({"kind": "membership_rmia"}, "attacked twins of the released model (RMIA)"),
    ],
)
def test_each_kind_has_words(fields: dict[str, Any], says: str) -> None:
    assert says in " ".join(words_of(finding(**fields)))


def test_a_finding_about_no_training_is_held_against_nothing(
    audited: tuple[Verification, str],
) -> None:
    found, experiment = audited
    op = finding(kind="canary", experiment="0" * 64, dataset="basel-heart")
    assert plan_of(found.history, op) is None
    assert proven_of(op, None) == ("nothing: it names no training", None)
    plan = found.history.experiments[experiment].plan
    one_by_one = replace(plan.sites[0].releases[0], engine="individual")
    site = replace(plan.sites[0], releases=(one_by_one,))
    alone = replace(plan, sites=(site,))
    assert proven_of(op, alone)[1] is None
