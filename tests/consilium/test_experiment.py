"""Experiments before they are proposed: checked against schemas, rehearsed on made-up rows."""

from __future__ import annotations

import csv
import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from consilium.actions.written import read_written
from consilium.demo.data import breast_cancer, demo_spec
from consilium.errors import InputError
from consilium.examples import example
from consilium.experiment import Experiment
from consilium.rehearsal import made_up_rows
from ledger.errors import PlanRefused
from ledger.experiment.schema import Schema
from node.data.intake import read_table
from tests.consilium.conftest import Run


def heart() -> tuple[Experiment, Schema]:
    """The heart disease example."""
    schema = read_written(example("heart-disease", "schema.yaml"), Schema)
    return Experiment.from_yaml(example("heart-disease", "experiment.yaml")), schema


def test_one_schema_stands_for_all_datasets_of_a_spec() -> None:
    experiment, schema = heart()
    names = [s.dataset for s in experiment.schemas_for([schema])]
    assert names == list(experiment.spec.federation.datasets)
    two = [schema, schema.model_copy(update={"dataset": "budapest-heart"})]
    with pytest.raises(InputError, match="no schema for dataset 'zurich-basel-heart'"):
        experiment.schemas_for(two)


def test_the_plan_costs_no_more_than_the_spec_allows() -> None:
    experiment, schema = heart()
    plan = experiment.check(experiment.schemas_for([schema]))
    assert len(plan.sites) == 4
    assert all(0 < site.epsilon_micro <= 10**6 for site in plan.sites)


def test_a_spec_from_fields_is_the_spec_from_the_file() -> None:
    experiment, _ = heart()
    fields = experiment.spec.model_dump(mode="json", by_alias=True)
    assert Experiment.from_fields(fields) == experiment
    with pytest.raises(InputError, match=r"privacy\.epsilon"):
        Experiment.from_fields({**fields, "privacy": {"epsilon": "-1"}})


def test_a_notebooks_numbers_are_numbers_and_the_rest_of_it_is_refused() -> None:
    experiment, _ = heart()
    fields = experiment.spec.model_dump(mode="json", by_alias=True)
    privacy = {**fields["privacy"], "epsilon": Decimal(fields["privacy"]["epsilon"])}
    seed = np.int64(fields.get("seed", 0))
    assert Experiment.from_fields({**fields, "privacy": privacy, "seed": seed}) == experiment
    for odd in ({"features": {"age"}}, {"model": object()}, {1: 2}, {"title": "\ud800"}):
        with pytest.raises(InputError, match="use texts, numbers, lists and mappings"):
            Experiment.from_fields({**fields, **odd})  # type: ignore[dict-item]


def test_an_unknown_feature_is_refused_with_the_known_ones() -> None:
    experiment, schema = heart()
    spec = experiment.spec.model_copy(update={"features": ("age", "weight")})
    with pytest.raises(PlanRefused, match="weight is not a column of cleveland-heart") as caught:
        Experiment(spec).check(experiment.schemas_for([schema]))
    assert caught.value.where == "features"


def test_made_up_rows_fit_the_schema_they_come_from(tmp_path: Path) -> None:
    for name in ("heart-disease", "breast-cancer"):
        schema = read_written(example(name, "schema.yaml"), Schema)
        table = read_table(made_up_rows(schema, tmp_path / f"{name}.csv", 1), schema)
        assert table.rows == schema.declared_rows


@pytest.mark.process
def test_a_rehearsal_runs_the_spec_with_the_nodes_own_code(run: Run) -> None:
    spec, schema = (example("heart-disease", f"{n}.yaml") for n in ("experiment", "schema"))
    said = run("experiment", "rehearse", spec, "--schema", schema, "--rounds", 2, "--json")
    assert said.code == 0, said.err
    done = json.loads(said.out)
    assert (done["rounds"], done["datasets"], done["parameters"]) == (2, 4, 21)
    assert done["update_bytes"] == 27 + 8 * 21
    assert done["epsilon"] <= 1
    assert {m["measure"] for m in done["measures"]} == {"auc", "accuracy", "brier"}


@pytest.mark.process
def test_a_rehearsal_of_a_norm_that_adapts_sends_one_value_more(run: Run, tmp_path: Path) -> None:
    text = example("heart-disease", "experiment.yaml").read_text(encoding="utf-8")
    path = tmp_path / "adaptive.yaml"
    adaptive = "privacy:\n  clipping: {kind: adaptive, quantile: 0.7}"
    path.write_text(text.replace("privacy:", adaptive, 1), encoding="utf-8")
    schema = example("heart-disease", "schema.yaml")
    said = run("experiment", "rehearse", path, "--schema", schema, "--rounds", 3, "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["update_bytes"] == 27 + 8 * 22


@pytest.mark.process
def test_a_rehearsal_where_patients_have_accounts_runs_beyond_the_full_rounds(
    run: Run, tmp_path: Path
) -> None:
    spec, schema = tmp_path / "spec.yaml", tmp_path / "schema.yaml"
    text = example("heart-disease", "experiment.yaml").read_text(encoding="utf-8")
    spec.write_text(text.replace("privacy:", "privacy:\n  full_rounds: 1", 1), encoding="utf-8")
    text = example("heart-disease", "schema.yaml").read_text(encoding="utf-8")
    text = text.replace("header: [", "header: [pid, ", 1)
    text = text.replace("columns:\n", "columns:\n  - {name: pid, type: patient_id}\n", 1)
    schema.write_text(text, encoding="utf-8")
    said = run("experiment", "rehearse", spec, "--schema", schema, "--rounds", 3, "--json")
    assert said.code == 0, said.err
    done = json.loads(said.out)
    assert (done["rounds"], done["update_bytes"]) == (3, 27 + 8 * 21)
    assert done["epsilon"] <= 1


@pytest.mark.parametrize("hospitals", [2, 4, 10])
def test_simulated_hospitals_share_the_table_unequally_and_within_what_they_declare(
    hospitals: int, tmp_path: Path
) -> None:
    data = breast_cancer(tmp_path, hospitals)
    counts, ill = [], []
    for site in data.sites:
        with site.data.open() as file:
            rows = list(csv.DictReader(file))
        counts.append(len(rows))
        ill.append(sum(row["diagnosis"] == "malignant" for row in rows) / len(rows))
        assert site.schema.declared_rows / 2 <= len(rows) <= 2 * site.schema.declared_rows
        assert site.schema.declared_rows % 10 == 0
        assert read_table(site.data, site.schema).rows == len(rows)
    assert sum(counts) == 569
    assert counts[0] > counts[-1]
    assert ill[0] < 0.3 < 0.4 < ill[-1]


def test_the_demos_spec_asks_everybody_and_measures_own_models(tmp_path: Path) -> None:
    data = breast_cancer(tmp_path, 3)
    spec = demo_spec(data, epsilon=2.5, rounds=7)
    assert spec.federation.datasets == ("basel-cells", "bern-cells", "chur-cells")
    assert (spec.federation.quorum, spec.federation.rounds) == (3, 7)
    assert spec.privacy.epsilon == Decimal("2.5")
    assert spec.privacy.baseline is not None
    with pytest.raises(InputError, match=r"privacy\.epsilon"):
        demo_spec(data, epsilon=-1, rounds=7)


def test_a_spec_may_be_a_preset_by_name(run: Run) -> None:
    schema = example("breast-cancer", "schema.yaml")
    said = run("experiment", "check", "breast-cancer", "--schema", schema, "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["parameters"] == 11
    missing = run("experiment", "check", "breast-canser", "--schema", schema)
    assert missing.code == 2
    assert "breast-canser is neither a file nor a preset" in missing.err
    assert "breast-cancer" in missing.err
