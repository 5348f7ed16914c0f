"""Specs and sites of which no plan is made, each with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from ledger.entries.operations.datasets import CellLimit
from ledger.entries.operations.values import MAX_INT
from ledger.errors import PlanRefused
from ledger.experiment.plan.check import check_plan
from ledger.experiment.plan.compilation import compile_plan
from ledger.experiment.plan.quantities import (
    training_rows,
)
from ledger.experiment.spec import ExperimentSpec
from ledger.formats.documents import encode_document, parse_document
from ledger.formats.value import replace
from tests.ledger.experiment.planned import (
    COLUMNS,
    MODEL,
    POISSON,
    cell,
    release,
    site,
    spec,
    why_not,
)
from tests.ledger.experiment.test_plan_tampered import in_release


@pytest.mark.parametrize(
    ("changed", "where", "reason"),
    [
        ({"features": ["age", "weight"]}, "features", "weight is not a column of basel; there"),
        ({"features": ["pid"]}, "features", "pid is the patient's identifier"),
        (
            {"task": {"kind": "binary", "target": "weight", "positive": ["1"]}},
            "task.target",
            "weight is not a column of basel to learn",
        ),
        (
            {"task": {"kind": "binary", "target": "sick", "positive": ["7"]}},
            "task",
            "'7' is not a value of sick in basel; there are: 0, 1, 2",
        ),
        (
            {"task": {"kind": "regression", "target": "sick"}},
            "task.target",
            "sick of basel is not a number column",
        ),
        (
            {"task": {"kind": "binary", "target": "sick", "above": "1"}},
            "task.target",
            "not a number column",
        ),
        (
            {"task": {"kind": "binary", "target": "age", "positive": ["1"]}, "features": ["sex"]},
            "task.target",
            "not a category column",
        ),
        ({"privacy": {"clip_norm": "0.0000001"}}, "privacy.clip_norm", "below the grid"),
        ({"privacy": {"epsilon": "0.0001"}}, "privacy.epsilon", "must lie in"),
        ({"privacy": {"metrics": {"bins": 5}}}, "privacy.metrics", "bins = 5"),
        (
            {"model": {"_target_": "torch.nn.Sequential", "layers": [
                {"_target_": "torch.nn.Linear", "in_features": 4, "out_features": 1}]}},
            "model",
            "takes 4 inputs, but the features have 3",
        ),
        (
            {"model": {"preset": "mlp", "hidden": [65536, 65536]}},
            "model",
            "over the limit of 5,000,000",
        ),
        (
            {"model": {"_target_": "torch.nn.Sequential", "layers": [
                {"_target_": "torch.nn.LayerNorm", "normalized_shape": 2}]}},
            "model",
            "normalises 2 values, but gets 3",
        ),
    ],
)  # fmt: skip
def test_a_spec_that_does_not_fit_its_datasets_is_refused_with_the_reason(
    changed: dict[str, Any], where: str, reason: str
) -> None:
    error = why_not(spec(**changed), site())
    assert error.where == where
    assert reason in error.reason


def test_more_inputs_than_a_layer_takes_are_refused_in_our_words() -> None:
    wide = [
        {"type": "category", "name": f"code{n}", "values": [f"v{i}" for i in range(4096)]}
        for n in range(17)
    ]
    names = [column["name"] for column in wide]
    error = why_not(spec(features=names), site(columns=[*wide, COLUMNS[2]]))
    assert error.where == "model"
    assert error.reason.startswith("in_features: input should be less than or equal to 65536")


OTHER_COLUMNS = {
    "bounds": {**COLUMNS[0], "high": "95"},
    "unit": {**COLUMNS[0], "unit": "months"},
    "missing": {**COLUMNS[0], "missing": "impute"},
    "fill": {**COLUMNS[0], "missing": "refuse", "fill": "30"},
}


@pytest.mark.parametrize("name", OTHER_COLUMNS)
def test_hospitals_must_declare_the_same_column_alike(name: str) -> None:
    other = site("bern", columns=[OTHER_COLUMNS[name], *COLUMNS[1:]])
    error = why_not(spec(("basel", "bern")), site(), other)
    assert error.where == "features"
    assert "column age is declared differently by basel and bern" in error.reason


def test_hospitals_must_list_the_same_codes_in_the_same_order() -> None:
    turned = {**COLUMNS[2], "values": ["1", "0", "2"]}
    error = why_not(spec(("basel", "bern")), site(), site("bern", columns=[*COLUMNS[:2], turned]))
    assert "column sick is declared differently" in error.reason
    respelt = {**COLUMNS[2], "values": ["0.0", "01", "2"]}
    alike = site("bern", columns=[*COLUMNS[:2], respelt, COLUMNS[3]])
    compile_plan(spec(("basel", "bern")), (site(), alike), MODEL)


def test_what_the_spec_does_not_name_may_differ() -> None:
    other = site("bern", columns=[*COLUMNS[:3], {**COLUMNS[0], "name": "weight"}])
    compile_plan(spec(("basel", "bern")), (site(), other), MODEL)


def test_a_dataset_without_cells_for_a_purpose_is_refused() -> None:
    only = site("basel", cell("basel-train", "train"))
    error = why_not(spec(), only)
    assert error.where in ("dataset basel", "plan.sites.basel")
    assert "no cell of patients for evaluate" in error.reason
    compile_plan(spec(privacy={"metrics": None}), (only,), MODEL)


def test_metrics_that_cost_the_whole_target_are_refused() -> None:
    greedy = {"metrics": {"share": "0.999999"}, "epsilon": "0.01"}
    plan = compile_plan(spec(privacy=greedy), (site(),), MODEL)
    check_plan(spec(privacy=greedy), (site(),), plan)
    assert release(plan, "train").noise_sd > release(plan, "evaluate").noise_sd


# --- hostile hospitals and researchers ------------------------------------------------------------


def test_a_size_beyond_all_bounds_is_refused_and_does_not_raise_another_error() -> None:
    monster = site(declared_train=MAX_INT)
    error = why_not(spec(), monster)
    assert error.where == "plan.sites.basel"
    assert "out of range" in error.reason


def test_charges_that_no_entry_can_say_are_refused() -> None:
    weak = spec(privacy={"epsilon": "100", "clip_norm": "0.000001", "metrics": None})
    place = site("basel", cell("basel-all", epsilon=900.0))
    plan = compile_plan(weak, (place,), MODEL)
    check_plan(weak, (place,), plan)  # one grid unit of sensitivity: still a plan
    one = in_release(0, noise_sd=MAX_INT)(plan)
    with pytest.raises(PlanRefused, match="it states noise of 9007199254740991"):
        check_plan(weak, (place,), one)


def test_the_fast_engine_is_refused_where_rounding_would_eat_the_clip_norm() -> None:
    tiny = {"engine": "fast", "clip_norm": "0.000004"}
    error = why_not(spec(privacy=tiny), site())
    assert error.where == "plan.sites.basel"
    assert "raise the clip norm, or use the exact engine" in error.reason
    compile_plan(spec(privacy=tiny | {"engine": "exact"}), (site(),), MODEL)


def test_clipping_by_layer_is_planned_and_charged_like_flat_clipping() -> None:
    flat, by_layer = spec(), spec(privacy={"clipping": "per_layer"})
    assert compile_plan(by_layer, (site(),), MODEL) == compile_plan(flat, (site(),), MODEL)
    assert b'"clipping"' not in encode_document(flat)
    assert b'"clipping":"per_layer"' in encode_document(by_layer)
    error = why_not(spec(privacy={"clipping": "per_layer", "clip_norm": "0.000001"}), site())
    assert error.where == "privacy.clip_norm"
    assert "no grid unit of it is left for each of 2" in error.reason
    tiny = {"engine": "fast", "clip_norm": "0.000008", "clipping": "per_layer"}
    assert "raise the clip norm" in why_not(spec(privacy=tiny), site()).reason


def test_views_cost_nothing_count_as_rows_for_rounding_and_need_a_number() -> None:
    plain, seen = spec(), spec(privacy={"augment": {"copies": 8}})
    assert compile_plan(seen, (site(),), MODEL) == compile_plan(plain, (site(),), MODEL)
    assert b'"augment"' not in encode_document(plain)
    assert parse_document(encode_document(seen), ExperimentSpec) == seen
    assert (training_rows(plain, 300), training_rows(seen, 300)) == (300, 2400)
    error = why_not(spec(privacy={"augment": {"copies": 8}}, features=["sex"]), site())
    assert error.where == "privacy.augment"
    assert "no feature is one" in error.reason


def test_a_cell_whose_promise_has_no_gate_is_refused() -> None:
    limit = CellLimit(g_max=1, r_max=1, order_centi=1_000_000)
    broken = replace(cell("basel-all"), delta_e15=1, limit=limit)
    error = why_not(spec(), site("basel", broken))
    assert error.where == "privacy.epsilon"
    strange = replace(cell("basel-all"), limit=limit)
    compile_plan(spec(federation=POISSON), (site("basel", strange),), MODEL)
