"""The utility benchmark trains by the plan, at the noise that the plan states, on whom it says."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks.utility import cases, charts, fit
from benchmarks.utility.federation import Rows, Setting, assemble, recomputed, scores, train
from benchmarks.utility.settings import FLAMBY, measured
from ledger.experiment.noise_shares import share_sd
from ledger.experiment.recipe import HOUSE, recipe
from tests.shared_data import shared

DELTA = 1e-5


@pytest.fixture(scope="module")
def made_up() -> Rows:
    return fit._task(np.random.default_rng(3), 300)


@pytest.fixture(scope="module")
def heart() -> Rows:
    return cases.heart(shared("data", "heart-disease", "processed.va.data").parent)


def test_noise_is_what_the_plan_states_and_epsilon_is_within_the_target(made_up: Rows) -> None:
    setting = Setting(1.0, DELTA)
    federation = assemble(made_up, setting)
    releases = [site.releases[0].noise_sd for site in federation.plan.sites]
    assert list(federation.noise_sd) == releases
    spent = recomputed(federation, setting)
    assert spent is not None
    assert 0.9 < spent["closed_form"] <= 1.0
    assert spent["pld"] == pytest.approx(spent["closed_form"], rel=1e-4)


def test_divided_noise_is_a_share_for_each_honest_hospital(made_up: Rows) -> None:
    federation = assemble(made_up, Setting(3.0, DELTA, shared=True))
    sites = len(made_up.names)
    assert federation.honest + 2 * federation.colluders == sites
    charged = {site.releases[0].noise_sd for site in federation.plan.sites}
    assert len(charged) == 1
    assert set(federation.noise_sd) == {share_sd(charged.pop(), federation.honest)}


def test_settings_are_the_recipes_the_houses_or_those_that_are_given(made_up: Rows) -> None:
    auto = assemble(made_up, Setting(3.0, DELTA))
    wanted = recipe(auto.signal)
    assert (auto.spec.rounds, auto.spec.learning_rate) == (wanted.rounds, wanted.learning_rate)
    house = assemble(made_up, Setting(3.0, DELTA, recipe="house")).spec
    assert (house.rounds, house.learning_rate) == (HOUSE.rounds, HOUSE.learning_rate)


def test_one_sum_of_all_rows_trains_as_the_sum_of_the_hospitals_sums(made_up: Rows) -> None:
    held_out = np.zeros(len(made_up.sites), dtype=bool)
    held_out[::2] = True
    federation = assemble(made_up, Setting(None, DELTA))
    apart = train(made_up, federation, held_out, one=False)
    together = train(made_up, federation, held_out, one=True)
    np.testing.assert_allclose(apart, together, atol=1e-3)
    assert scores(made_up, apart).shape == made_up.targets.shape


def test_the_flamby_split_has_its_published_sizes(heart: Rows) -> None:
    held_out = cases.flamby(heart)
    trained = [int((~held_out & (heart.sites == site)).sum()) for site in range(4)]
    assert trained == [199, 172, 30, 85]
    assert np.abs(heart.features).max() <= 1.0


def test_heart_disease_at_epsilon_one_beats_each_hospitals_majority_class(heart: Rows) -> None:
    line = measured("heart", heart, FLAMBY, Setting(1.0, DELTA), 10)
    assert line["auc"] > 0.84
    assert line["accuracy_mean"] > 0.7207
    assert json.loads(json.dumps(line)) == line


def test_a_patients_rows_are_never_on_both_sides(made_up: Rows) -> None:
    several = replace(made_up, units=np.arange(len(made_up.units)) // 2,
                      sites=made_up.sites[: len(made_up.sites) // 2])  # fmt: skip
    held_out = cases.random_patients(several, 1)
    assert held_out.shape == several.sites.shape
    test = held_out[several.units]
    assert not set(several.units[test]) & set(several.units[~test])


def test_the_chart_says_in_words_what_it_draws(made_up: Rows, tmp_path: Path) -> None:
    split = replace(FLAMBY, held_out=lambda rows, _: cases.random_patients(rows, 0))
    line = measured("heart", made_up, split, Setting(1.0, DELTA, shared=True), 2)
    (tmp_path / "lines.jsonl").write_text(json.dumps(line) + "\n")
    page = tmp_path / "utility.md"
    charts.main([str(tmp_path / "lines.jsonl"), "--write", str(page)])
    drawn = ElementTree.fromstring((tmp_path / "utility.svg").read_text())
    assert drawn.get("role") == "img"
    words = "".join(drawn.itertext())
    assert f"AUC {line['auc']:.3f}" in words
    assert f"h {line['h_min']}, t {line['t']}, c {line['c']}" in page.read_text()
    assert math.isfinite(float(str(line["seconds"])))
