"""``consilium audit attack``: from a spec or a log to a finding, its exit code, and an entry."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from consilium.actions import speaking
from ledger.errors import CoordinatorUnreachable
from privacy.noise import SecureRandom
from privacy.selfaudit import known_answers
from tests.consilium.conftest import Finished, Live, Run
from tests.consilium.test_bad_input import SCHEMA, rows
from tests.consilium.test_federation_on_loopback import join

EXAMPLE = Path(__file__).parents[2] / "examples" / "first-steps"
SPEC = ("--spec", EXAMPLE / "experiment.yaml", "--schema", EXAMPLE / "alpha.yaml")


def test_known_answers_need_nothing(run: Run) -> None:
    said = run("audit", "attack", "--kind", "known-answers", "--json")
    found = json.loads(said.out)
    assert (said.code, found["finding"], found["bound"]) == (0, "as_proved", 1.0)
    assert all(answer["right"] for answer in found["answers"])


def test_a_wrong_answer_is_printed_and_exits_with_1(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_answers, "admitted", lambda epsilon: 99)
    said = run("audit", "attack", "--kind", "known-answers")
    assert said.code == 1
    assert "AGAINST the proof" in said.out
    assert "experiments of epsilon 1 in a lifetime of 5: 99, not 16 .. 16" in said.out


def test_each_attack_runs_over_a_spec_and_says_observed_beside_proven(
    run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "canary.json"
    said = run("audit", "attack", *SPEC, "--runs", 100, "--out", out)
    assert said.code == 0, said.err
    assert "observed at least mu" in said.out
    assert "of proven" in said.out
    found = json.loads(out.read_bytes())
    assert found["audit"] == "canary"
    assert found["steps"]["made"] == found["steps"]["charged"]
    said = run("audit", "attack", "--kind", "one-run", *SPEC, "--canaries", 200)
    assert (said.code, "the smoke alarm is silent" in said.out) == (0, True)
    said = run("audit", "attack", "--kind", "membership", *SPEC, "--shadows", 12)
    assert (said.code, "true positives at 1 % false ones" in said.out) == (0, True)
    said = run("audit", "attack", "--kind", "membership-rmia", *SPEC, "--shadows", 12, "--json")
    found = json.loads(said.out)
    assert (said.code, found["audit"], found["attack"]) == (0, "membership_rmia", "RMIA, offline")
    assert found["measured"] <= found["high"]
    assert found["population"] * 5 == pytest.approx(found["population"] + found["twins"], rel=0.02)


def test_a_model_that_embeds_codes_and_reads_series_is_attacked_like_any_other(
    run: Run, tmp_path: Path
) -> None:
    folder = EXAMPLE.parent / "vital-signs"
    written = (folder / "experiment.yaml").read_text()
    spec = tmp_path / "experiment.yaml"
    quick = written.replace("epsilon: 4", "epsilon: 4\n  engine: fast")
    spec.write_text(quick.replace("quorum: 2", "quorum: 2\n  rounds: 1"))
    asked = ("--spec", spec, "--schema", folder / "schema.yaml")
    said = run("audit", "attack", "--kind", "membership-rmia", *asked, "--shadows", 8)
    assert (said.code, "true positives at 1 % false ones" in said.out) == (0, True)
    said = run("audit", "attack", *asked, "--runs", 100)
    assert (said.code, "observed at least mu" in said.out) == (0, True)


def test_half_the_noise_exits_with_1(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    true = SecureRandom.gaussian_integers

    def halved(self: SecureRandom, noise_sd: int, size: int) -> npt.NDArray[np.int64]:
        return true(self, noise_sd // 10, size)

    monkeypatch.setattr(SecureRandom, "gaussian_integers", halved)
    said = run("audit", "attack", *SPEC, "--runs", 150)
    assert said.code == 1
    assert "AGAINST the proof" in said.out


def test_an_experiment_of_a_log_is_attacked_as_it_was_planned(run: Run, finished: Finished) -> None:
    said = run("audit", "attack", "--at", finished.home, "--runs", 100, "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert found["experiment"] == finished.experiment
    assert found["dataset"] in finished.federation.state.datasets
    wrong = run("audit", "attack", "--at", finished.home, "--dataset", "nobodys")
    assert (wrong.code, "asks for" in wrong.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("--kind", "guessing"),
            "is none of: known-answers, canary, one-run, membership, membership-rmia",
        ),
        ((*SPEC[:2],), "--spec and --schema belong together"),
        ((*SPEC, "--experiment", "x"), "say what to attack once"),
        ((*SPEC, "--submit"), "--submit speaks of an experiment in the log"),
        (("--at", "x", "--submit"), "leave --at out"),
        ((*SPEC, "--public-twins", "x.csv"), "other attacks make rows up"),
        ((*SPEC, "--out", "x.txt"), "results are written as .json"),
        ((*SPEC, "--out", "nowhere/x.json"), "nowhere is no folder"),
        (("--kind", "known-answers", *SPEC), "it takes no experiment"),
        (("--submit", "--kind", "known-answers", "--home", "nowhere"), "is no member's home"),
    ],
)
def test_what_does_not_go_together_is_refused(
    run: Run, arguments: tuple[object, ...], says: str
) -> None:
    said = run("audit", "attack", *arguments)
    assert said.code == 2
    assert says in said.err


@pytest.mark.process
def test_a_node_says_what_it_found_and_its_patients_are_not_taken_for_twins(
    run: Run, live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    basel = tmp_path / "basel"
    mine = ("--home", basel, "--passphrase-file", live.passphrase)
    join(run, live, "basel", basel)
    data, schema = tmp_path / "data.csv", tmp_path / "schema.yaml"
    data.write_text(rows())
    schema.write_text(SCHEMA)
    register = ("dataset", "register", "--data", data, "--schema", schema, *mine)
    assert run(*register, "--epsilon", 8).code == 0

    out = tmp_path / "found.json"
    said = run("audit", "attack", "--kind", "known-answers", "--submit", "--out", out, *mine)
    assert said.code == 0, said.err
    assert "said in the log: entry" in said.err
    listed = run("ledger", "list", "--json", "--home", basel, "--passphrase-file", live.passphrase)
    assert "privacy.audited" in listed.out
    exported = tmp_path / "basel.consilium"
    assert run("ledger", "export", "--out", exported, *mine).code == 0
    assert out.read_bytes() in exported.read_bytes(), "everything that was found goes with the log"

    def unreachable(member: object, operation: object) -> object:
        raise CoordinatorUnreachable(live.url, "refused")

    monkeypatch.setattr(speaking, "say", unreachable)
    said = run("audit", "attack", "--kind", "known-answers", "--submit", *mine)
    assert said.code == 3
    assert "known answers are right" in said.out
    monkeypatch.setattr(known_answers, "admitted", lambda epsilon: 99)
    said = run("audit", "attack", "--kind", "known-answers", "--submit", *mine)
    assert said.code == 1, "what was found counts, whether or not it could be said"
    assert "AGAINST the proof" in said.out
    assert "is NOT in the log (alone this would exit with 3)" in said.err

    copy = tmp_path / "renamed.csv"
    copy.write_bytes(data.read_bytes())
    said = run("audit", "attack", "--kind", "membership", *SPEC, "--public-twins", copy, *mine)
    assert said.code == 2
    assert "is the dataset basel-heart of" in said.err
    assert "itself a statistic of patients" in said.err
