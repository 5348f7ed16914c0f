"""A compromise date: what was signed from then on is shown as disputed everywhere, and stands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from fastapi.testclient import TestClient

from audit.console.app import create_app
from audit.console.render import data_use_html
from audit.reports.data_use import data_use_report
from audit.verification.sources import open_copies
from audit.verification.verify import Verification, verify
from ledger.entries.invitation import member_keys
from ledger.entries.operations.federation import (
    ChangeEndorsed,
    ChangeProposed,
    ExpelChange,
    RekeyChange,
)
from ledger.entries.operations.log import NodeResumed, TimeNoted
from ledger.entries.operations.members import KeyRevoked
from tests.audit.conftest import write
from tests.federation import COORDINATOR, Federation, node_of, steward_of
from tests.ledger.rules.test_fold_changes import conflict, two_entries
from tests.ledger.rules.test_fold_members import anew

NODE = node_of("basel")


class Disputed(NamedTuple):
    """A verified copy on disk, and the two entries in it that are disputed."""

    found: Verification
    entries: tuple[int, int]
    home: Path


def resumed(digit: str) -> NodeResumed:
    return NodeResumed(type="node.resumed", nonce=digit * 64)


def tick(federation: Federation) -> None:
    federation.say(COORDINATOR, TimeNoted(type="time.noted"))


@pytest.fixture(scope="module")
def disputed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disputed]:
    """Basel's node signs before, at and after a compromise date, is revoked, and gets new keys."""
    federation = Federation.found()
    federation.start()
    before = federation.say(NODE, resumed("1")).index
    tick(federation)
    tick(federation)
    since = federation.now_ms
    within = federation.say(NODE, resumed("2")).index  # log time had not moved since the last tick
    tick(federation)
    after = federation.say(NODE, resumed("3")).index
    revoke = KeyRevoked(type="key.revoked", member=NODE, compromised_since_ms=since)
    federation.say(steward_of("basel"), revoke)
    new = anew(NODE, "node")
    change = RekeyChange(member=NODE, keys=member_keys(new))
    said = federation.say(
        steward_of("bern"), ChangeProposed(type="change.proposed", change=change)
    ).entry
    federation.say(steward_of("chur"), ChangeEndorsed(type="change.endorsed", change=said.hash))
    federation.rings[NODE] = new
    federation.say(NODE, resumed("4"))  # under the new keys: nobody doubts it
    expel = ChangeProposed(type="change.proposed", change=ExpelChange(organisation="davos"))
    out = federation.say(steward_of("bern"), expel).entry
    federation.say(steward_of("chur"), ChangeEndorsed(type="change.endorsed", change=out.hash))
    federation.say(node_of("bern"), conflict(*two_entries(federation, node_of("chur"))))
    federation.finalize()
    home = write(federation, "", tmp_path_factory.mktemp("disputed")).home
    (copy,) = open_copies(str(home))
    found = verify(copy, trust=federation.id)
    assert found.history.disputes()[0].entries == (within, after)
    assert before not in found.history.disputes()[0].entries
    yield Disputed(found, (within, after), Path(home))
    copy.close()


def test_verification_names_disputed_entries_and_refutes_nothing(
    disputed: Disputed,
) -> None:
    found, (within, after), _ = disputed
    assert found.report.refuted == ()
    (check,) = [c for c in found.report.checks if c.step == 5 and c.verdict == "not_checkable"]
    assert f"disputed: entries {within}, {after} of {NODE}" in check.detail
    assert "who signed cannot be told" in check.detail
    assert found.report.verdict_of(5) == "not_checkable"


def test_a_report_says_on_its_face_what_is_disputed(
    disputed: Disputed,
) -> None:
    found, (within, after), _ = disputed
    report = data_use_report(found, "basel-heart", now_ms=1, by="a test")
    (line,) = report.header.standing.disputed
    assert f"entries {within}, {after}" in line
    page = data_use_html(report)
    assert "Some of it is disputed" in page
    assert f"entries {within}, {after} of {NODE}" in page


def test_the_dataset_of_an_expelled_hospital_says_how_it_was_withdrawn(
    disputed: Disputed,
) -> None:
    found = disputed.found
    report = data_use_report(found, "davos-heart", now_ms=1, by="a test")
    assert "its organisation was expelled" in report.dataset.withdrawn
    (against,) = [a for a in report.decisions_against if a.why == "its organisation was expelled"]
    assert (against.who, against.what) == (
        "chur-steward", "completed the expulsion that withdrew it")  # fmt: skip


def test_the_console_marks_disputed_entries_and_members_whose_keys_ended(
    disputed: Disputed,
) -> None:
    found, (within, after), home = disputed
    app = create_app(str(home), trust=found.report.federation, interval_s=60)
    with TestClient(app, base_url="http://localhost") as client:
        _check_console(client, within, after)


def _check_console(client: TestClient, within: int, after: int) -> None:
    for index in (within, after):
        assert "It is disputed." in client.get(f"/entries/{index}").text
    assert "It is disputed." not in client.get(f"/entries/{within - 1}").text
    page = client.get("/members").text
    assert "disputed since" in page
    assert ">expelled<" in page
    assert "key ended by evidence" in page


def test_what_hospitals_had_cosigned_before_the_date_is_not_disputed_however_still_log_time_stood(
    tmp_path: Path,
) -> None:
    federation = Federation.found()
    tick(federation)
    seen = federation.say(NODE, resumed("1")).index  # log time stands still from here on
    federation.finalize()
    federation.now_ms += 3_600_000
    since = federation.now_ms
    federation.now_ms += 1000
    late = federation.say(NODE, resumed("2")).index
    revoke = KeyRevoked(type="key.revoked", member=NODE, compromised_since_ms=since)
    federation.say(steward_of("basel"), revoke)
    federation.finalize()
    (copy,) = open_copies(str(write(federation, "", tmp_path).home))
    found = verify(copy, trust=federation.id)
    copy.close()
    assert found.report.refuted == ()
    (dispute,) = found.history.disputes()
    assert seen not in dispute.entries
    assert late in dispute.entries, (
        "signed within the silence, and by nobody's clock before the date"
    )


def test_cosignatures_of_too_few_hospitals_or_of_after_the_date_clear_nothing(
    tmp_path: Path,
) -> None:
    federation = Federation.found()
    tick(federation)
    stolen = federation.say(NODE, resumed("1")).index
    since = federation.now_ms
    for hospital in ("basel", "bern"):  # two of four, one of them the thief's
        federation.checkpoint([node_of(hospital)], at_s=since // 1000 - 60)
    for hospital in ("chur", "davos"):
        federation.checkpoint([node_of(hospital)], at_s=since // 1000 + 60)
    federation.finals.append(federation.log.size)
    revoke = KeyRevoked(type="key.revoked", member=NODE, compromised_since_ms=since)
    federation.say(steward_of("basel"), revoke)
    (copy,) = open_copies(str(write(federation, "", tmp_path).home))
    found = verify(copy, trust=federation.id)
    copy.close()
    assert stolen in found.history.disputes()[0].entries
