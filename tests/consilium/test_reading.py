"""Commands that read a copy of the ledger, without keys or network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from consilium.actions.reading import offline_view
from consilium.client import pooled_metrics
from consilium.errors import UnknownName
from consilium.naming import the_experiment
from ledger.rules.purposes import gate
from privacy.errors import BudgetExceeded
from privacy.filters import Charge, reserve
from tests.consilium.conftest import Finished, Run


def test_the_federation_says_who_witnesses_it(run: Run, finished: Finished) -> None:
    said = json.loads(run("federation", "show", "--at", finished.home, "--json").out)
    assert said["federation"] == finished.federation.id
    assert said["witnesses"] == ["basel", "bern", "chur", "davos"]
    assert said["entries"] == finished.federation.log.size


def test_members_are_listed_with_their_roles(run: Run, finished: Finished) -> None:
    said = json.loads(run("member", "list", "--at", finished.home, "--json").out)
    roles = {member["handle"]: member["role"] for member in said["members"]}
    assert roles["basel-node"] == "node"
    assert roles["ada"] == "researcher"


def test_a_dataset_shows_its_columns_and_its_budget(run: Run, finished: Finished) -> None:
    table = run("dataset", "show", "basel-heart", "--at", finished.home).out
    assert "chol" in table
    assert "100 .. 600" in table
    found = json.loads(run("dataset", "budget", "basel-heart", "--at", finished.home, "--json").out)
    (cell,) = found["cells"]
    assert cell["cell"] == "basel-all"
    assert 0.0 < cell["epsilon_spent"] <= 1.0 < cell["epsilon"] == 5.0
    by_delta = {point["delta"]: point["epsilon"] for point in cell["curve"]}
    assert by_delta[1e-5] == pytest.approx(cell["epsilon_spent"])
    assert by_delta[1e-3] < by_delta[1e-5] < by_delta[1e-12]
    assert 0.01 < cell["attacker_gain_at_1_percent"] < 0.1


def test_a_datasets_budget_says_how_many_more_experiments_fit(run: Run, finished: Finished) -> None:
    found = json.loads(run("dataset", "budget", "basel-heart", "--at", finished.home, "--json").out)
    state = finished.federation.state
    cell = state.cells["basel-all"]
    (charge,) = state.experiments[finished.experiment].reservations["basel-heart"].charges
    fitted = found["more_like_last"]
    assert found["last_experiment"] == "first"
    spend = cell.spend
    for _ in range(fitted):
        spend = reserve(spend, Charge(charge.g, charge.r), gate(cell))
    with pytest.raises(BudgetExceeded):
        reserve(spend, Charge(charge.g, charge.r), gate(cell))
    said = run("dataset", "budget", "basel-heart", "--at", finished.home).out
    assert f"{fitted} more experiments like first, the last one, fit." in said
    assert "epsilon of what is spent, at each delta:" in said


def test_a_datasets_budget_has_units_in_its_headings(run: Run, finished: Finished) -> None:
    name = ("dataset", "budget", "basel-heart", "--at", finished.home)
    (cell,) = json.loads(run(*name, "--json").out)["cells"]
    heading, row = run(*name).out.splitlines()[:2]
    assert heading.split("  ")[-1].strip() == "more_like_last (experiments)"
    assert "left (% of wider lane)" in heading
    assert "attacker hits at 1 % false alarms (%)" in heading
    left, gain = row.split()[-3:-1]
    assert float(left) == round(100 * cell["left"], 1)
    assert float(gain) == round(100 * cell["attacker_gain_at_1_percent"], 1)


def test_an_unknown_dataset_is_refused_with_the_known_ones(run: Run, finished: Finished) -> None:
    said = run("dataset", "show", "geneva-heart", "--at", finished.home)
    assert said.code == 2
    assert "no dataset 'geneva-heart'" in said.err
    assert "basel-heart, bern-heart" in said.err


def test_an_experiment_is_found_by_name_id_or_beginning(finished: Finished) -> None:
    state = finished.federation.state
    for name in ("first", finished.experiment, finished.experiment[:6]):
        assert the_experiment(state, name).id == finished.experiment
    with pytest.raises(UnknownName) as caught:
        the_experiment(state, "second")
    assert caught.value.known == (f"first ({finished.experiment[:8]})",)


def test_experiment_show_tells_purpose_and_cost(run: Run, finished: Finished) -> None:
    said = json.loads(run("experiment", "show", "first", "--at", finished.home, "--json").out)
    assert said["spec"]["purpose"] == "To see whether the federation works."
    assert {site["dataset"] for site in said["sites"]} == set(said["asked"])
    assert all(0 < site["epsilon"] <= 1 for site in said["sites"])


def test_metrics_come_from_the_sum_of_noisy_histograms(run: Run, finished: Finished) -> None:
    said = run("model", "metrics", "first", "--at", finished.home, "--json")
    assert set(json.loads(said.out)["federated"]) == {"auc", "accuracy", "brier"}
    with offline_view(finished.home) as view:
        assert set(pooled_metrics(view, finished.experiment)) == {"federated"}


def test_released_models_are_listed(run: Run, finished: Finished) -> None:
    (model,) = json.loads(run("model", "list", "--at", finished.home, "--json").out)
    assert model["id"] == finished.experiment
    assert model["sha256"] in finished.federation.blobs


def test_the_log_can_be_narrowed_to_one_operation(run: Run, finished: Finished) -> None:
    said = run("ledger", "list", "--at", finished.home, "--type", "round.aggregated", "--json")
    rows = json.loads(said.out)
    assert {row["operation"] for row in rows} == {"round.aggregated"}
    assert {row["verdict"] for row in rows} == {"applied"}
    assert len(rows) == 3


def test_one_entry_is_shown_as_it_was_signed(run: Run, finished: Finished) -> None:
    said = json.loads(run("ledger", "show", 0, "--at", finished.home, "--json").out)
    assert said["operation"] == "federation.founded"
    assert said["body"]["op"]["name"] == "test-federation"
    beyond = run("ledger", "show", 9999, "--at", finished.home)
    assert beyond.code == 2
    assert "no entry '9999'" in beyond.err


def test_the_newest_checkpoint_is_printed_as_the_note_it_is(run: Run, finished: Finished) -> None:
    said = run("ledger", "checkpoint", "--at", finished.home).out
    assert said.startswith(f"consilium/{finished.federation.id}\n{finished.federation.log.size}\n")
    fields = json.loads(run("ledger", "checkpoint", "--at", finished.home, "--json").out)
    assert fields["note"] == said
    assert fields["size"] == finished.federation.log.size
    assert fields["origin"] == f"consilium/{finished.federation.id}"
    assert fields["origin"] in fields["signed_by"]
    assert len(fields["root"]) == 64


def test_an_export_verifies_like_the_copy_it_came_from(
    run: Run, finished: Finished, tmp_path: Path
) -> None:
    bundle, genesis = tmp_path / "all.consilium", tmp_path / "genesis.leaf"
    genesis.write_bytes(finished.federation.leaves[0])
    assert run("ledger", "export", "--at", finished.home, "--out", bundle).code == 0
    said = run("audit", "verify", bundle, "--trust", genesis, "--json")
    assert said.code == 0, said.out
    (report,) = json.loads(said.out)["copies"]
    assert report["anchor"] == "trusted"
    assert report["steps"]["12"] == "proved"


def test_a_changed_bundle_is_refuted_with_one_and_the_place(
    run: Run, finished: Finished, tmp_path: Path
) -> None:
    bundle = tmp_path / "changed.consilium"
    assert run("ledger", "export", "--at", finished.home, "--out", bundle).code == 0
    data = bytearray(bundle.read_bytes())
    data[1000] ^= 1
    bundle.write_bytes(data)
    said = run("audit", "verify", "--at", bundle)
    assert said.code == 1
    assert "REFUTED" in said.out
    assert "[" in said.out


def test_verification_says_when_nothing_outside_anchors_it(run: Run, finished: Finished) -> None:
    said = run("audit", "verify", finished.home)
    assert said.code == 0
    assert "self-anchored" in said.out
    assert "nothing was refuted" in said.out


def test_a_place_that_is_not_there_is_bad_input(run: Run, tmp_path: Path) -> None:
    said = run("audit", "verify", tmp_path / "nothing")
    assert said.code == 2
    assert "is not there" in said.err
