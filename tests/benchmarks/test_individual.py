"""The benchmark of patients' accounts keeps the promise that it compares at."""

from __future__ import annotations

import json

import pytest

from benchmarks import individual
from benchmarks.individual import Setting, play, synthetic


def test_with_accounts_patients_go_on_after_the_full_rounds_and_retire() -> None:
    table = synthetic(1, patients=120, width=3)
    alike = play(table, Setting(1.0, 0.5, 2, 4, False))
    assert alike.took_part == (1.0,) * 4
    one_by_one = play(table, Setting(3.0, 2.0, 2, 16, True))
    assert one_by_one.took_part[:2] == (1.0, 1.0)
    assert one_by_one.took_part[4] > 0.5
    assert one_by_one.took_part[-1] < one_by_one.took_part[4]


def test_a_line_says_what_was_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(individual, "SETTINGS", (Setting(3.0, 2.0, 1, 2, True),))
    assert individual.main(["--runs", "2", "--json"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert (line["case"], line["accounts"], line["rounds"]) == ("synthetic", True, 2)
    assert 0.5 < line["auc"] < 1
