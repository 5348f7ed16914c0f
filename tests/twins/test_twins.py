"""Hospitals that differ in one patient look alike from outside; ``python -m tests.twins.play`` plays all of them."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from ledger.exchange.home import MemberHome
from node.data.hospital_key import load_hospital_key
from node.errors import DatasetError
from node.register.individual import LIFETIME, open_spend
from node.register.private import PRIVATE, PrivateRegister
from tests.federation import node_of
from tests.node.town import PASSPHRASE, Town
from tests.twins import play
from tests.twins.outside import Outside
from tests.twins.play import PATIENTS, Twin, differences, offer


@pytest.fixture(autouse=True)
def test_federation(quick_keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSILIUM_TEST_FEDERATION", "1")


@pytest.mark.process
def test_one_patient_more_or_less_is_not_seen_from_outside(tmp_path: Path) -> None:
    twins = [
        Twin("clinic-0"),
        Twin("clinic-1", PATIENTS["every value missing"], "train"),
        Twin("clinic-2", PATIENTS["thousands of rows"], "train"),
        Twin("clinic-3", PATIENTS["out of every range"], "test"),
        Twin("clinic-4", ("90,600,1",) * 40, again=True),
        Twin("clinic-5", sick=False),
        Twin("clinic-6", PATIENTS["ordinary"], "train", sick=False),
    ]
    seen = play.play(tmp_path, twins)
    plain = seen["clinic-0"]
    assert len(plain.vectors) == 7
    assert len(plain.requests) > 30
    assert sum(len(lines) for lines in plain.logs.values()) > 10
    assert set(plain.pages) == set(play.PAGES)
    for name in list(seen)[1:]:
        assert differences(plain, seen[name]) == [], name
    values = {name: tuple(outside.vectors) for name, outside in seen.items()}
    assert len(set(values.values())) == len(twins)  # what is paid for does differ


@pytest.mark.process
def test_nobody_sees_from_outside_who_has_what_left(tmp_path: Path) -> None:
    twins = [
        Twin("clinic-0"),
        Twin("clinic-1", PATIENTS["ordinary"], "train"),
        Twin("clinic-2", ("90,600,0",) * 40, again=True),
    ]
    seen = play.play(tmp_path, twins, individual=True)
    plain = seen["clinic-0"]
    assert len(plain.vectors) == 9
    for name in list(seen)[1:]:
        assert differences(plain, seen[name]) == [], name
    assert retired(tmp_path, "clinic-0") > 20
    accounts = {tuple(sorted(spends(tmp_path, twin.name))) for twin in twins}
    assert len(accounts) == len(twins)


def spends(directory: Path, name: str) -> list[int]:
    """What the patients of a hospital have spent of their promise, opened with its own key."""
    member = MemberHome(directory / node_of(name)).open(PASSPHRASE)
    private = PrivateRegister.open(member.home.path / PRIVATE)
    try:
        key = load_hospital_key(member.home.path, member.keyring.sealing)
        sealed = private.patients.record_of(LIFETIME)
        cell = private.view.cells[f"{name}-train"]
        assert cell.spend.g == 0  # every round's worst case was taken back
        return open_spend(key, LIFETIME, sealed).spent.tolist()
    finally:
        private.close()
        member.close()


def retired(directory: Path, name: str) -> int:
    """Patients who have spent all that the two experiments may cost."""
    found = spends(directory, name)
    return sum(spent > 0.99 * max(found) for spent in found)


def request(body: bytes, **headers: str) -> httpx.Request:
    return httpx.Request("POST", "http://127.0.0.1:1/v1/entries", content=body, headers=headers)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (request(b"dataset clinic-0"), request(b"dataset clinic-1, one row more")),
        (request(b"x", note="1"), request(b"x", note="2")),
        (request(b"\xff" * 8), request(b"\xff" * 9)),
    ],
)
def test_what_does_differ_is_shown(ours: httpx.Request, theirs: httpx.Request) -> None:
    one, other = Outside("clinic-0"), Outside("clinic-1")
    one.request(ours)
    other.request(theirs)
    assert differences(one, other)


def test_a_log_line_that_counts_rows_is_shown() -> None:
    one, other = Outside("clinic-0"), Outside("clinic-1")
    one.log("loop", {"event": "round.done", "rows": 180})
    other.log("loop", {"event": "round.done", "rows": 181})
    assert any("181" in line for line in differences(one, other))


def test_identifiers_of_one_length_are_equal_where_they_are_equal_to_the_same_others() -> None:
    one, other, odd = Outside("clinic-0"), Outside("clinic-1"), Outside("clinic-2")
    for outside, words in ((one, "aab"), (other, "ccd"), (odd, "efe")):
        for word in words:
            outside.log("loop", {"id": word * 64})
    assert differences(one, other) == []
    assert differences(one, odd) != []


def test_a_row_that_is_refused_at_registration_sends_nothing(tmp_path: Path) -> None:
    strict = play.schema("clinic-0-heart").model_copy(update={"missing_marks": ()})
    with Town(tmp_path, ["clinic-0"]) as town:
        outside = Outside("clinic-0")
        with pytest.raises(DatasetError, match='"nan" is not a finite number'):
            offer(town, Twin("clinic-0", PATIENTS["not numbers"]), outside, strict)
    assert outside.requests == []
    assert outside.polls == set()
