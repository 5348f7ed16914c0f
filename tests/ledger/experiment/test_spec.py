"""Specs: data that a steward can read, with one hash for one experiment."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from ledger.experiment.spec import ExperimentSpec, FedAvg, FedSgd, MulticlassTask
from ledger.formats.documents import encode_document, parse_document

SPEC: dict[str, Any] = {
    "consilium": 1,
    "name": "first",
    "title": "Sick or not",
    "purpose": "To see.\nAnd to understand.",
    "lawful_basis": "consent",
    "until": "2030-01-01",
    "task": {"kind": "binary", "target": "sick", "positive": ["1"]},
    "features": ["age", "chol"],
    "model": {"preset": "logistic-regression"},
    "federation": {"datasets": ["a", "b"], "quorum": 2},
    "privacy": {"epsilon": "1"},
}


def spec(**changed: Any) -> ExperimentSpec:
    return ExperimentSpec.model_validate(SPEC | changed)


def refused(**changed: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        spec(**changed)
    return str(caught.value)


def federation(**changed: Any) -> dict[str, Any]:
    return SPEC["federation"] | changed  # type: ignore[no-any-return]


def test_a_spec_leaves_its_settings_to_the_recipe_by_default() -> None:
    made = spec()
    assert made.federation.strategy == FedSgd(name="fedsgd", learning_rate="auto")
    assert (made.federation.rounds, made.federation.sampling) == ("auto", "full")
    assert made.auto == ("federation.strategy.learning_rate", "federation.rounds")
    with pytest.raises(ValueError, match="still auto"):
        _ = made.rounds
    with pytest.raises(ValueError, match="still auto"):
        _ = made.learning_rate
    assert made.privacy.metrics is not None
    assert made.privacy.baseline is None
    assert made.outputs == 1


def test_a_spec_comes_back_from_its_bytes() -> None:
    for made in (
        spec(),
        spec(federation=federation(sampling="0.25", strategy={"name": "fedavg"})),
        spec(privacy={"epsilon": "3", "metrics": {}, "baseline": {}}),
        spec(model={"_target_": "torch.nn.Sequential", "layers": [
            {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 1}]}),
    ):  # fmt: skip
        assert parse_document(encode_document(made), ExperimentSpec) == made


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"privacy": {"epsilon": "1.0"}}, {"privacy": {"epsilon": 1}}),
        (
            {"federation": federation(sampling="0.250")},
            {"federation": federation(sampling="2.5E-1")},
        ),
        (
            {"federation": federation(strategy={"name": "fedavg", "learning_rate": "1E+1"})},
            {"federation": federation(strategy={"name": "fedavg", "learning_rate": "10.00"})},
        ),
    ],
)
def test_one_experiment_has_one_spelling(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert encode_document(spec(**one)) == encode_document(spec(**other))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"features": ["age", "age"]}, "a feature is listed twice"),
        ({"features": ["age", "sick"]}, "the target sick is also a feature"),
        ({"features": []}, "at least 1"),
        ({"task": {"kind": "binary", "target": "sick"}}, "either positive"),
        (
            {"task": {"kind": "binary", "target": "sick", "positive": ["1"], "above": "1"}},
            "either positive",
        ),
        ({"task": {"kind": "multiclass", "target": "sick", "classes": ["0", "1"]}}, "at least 3"),
        ({"federation": federation(datasets=["a", "a"])}, "a dataset is listed twice"),
        ({"federation": federation(quorum=3)}, "quorum 3 is more than the 2 datasets"),
        ({"federation": federation(sampling="1.5")}, "less than or equal to 1"),
        ({"federation": federation(sampling="0")}, "greater than 0"),
        ({"federation": federation(rounds=0)}, "greater than or equal to 1"),
        ({"federation": federation(strategy={"name": "scaffold"})}, "expected tags"),
        ({"privacy": {"epsilon": "0"}}, "greater than 0"),
        ({"privacy": {"epsilon": "Infinity"}}, "finite"),
        ({"privacy": {"epsilon": "NaN"}}, "finite"),
        ({"privacy": {"epsilon": "1", "metrics": None, "baseline": {}}}, "set privacy.metrics"),
        ({"privacy": {"epsilon": "1", "delta": "1e-5"}}, "not permitted"),
        ({"title": "two\nlines"}, "match pattern"),
        ({"title": "turned \u202e round"}, "match pattern"),
        ({"purpose": ""}, "at least 1"),
        ({"model": {"_target_": "os.system"}}, "`_target_: torch.nn.Sequential` with `layers`"),
        ({"model": {"_target_": "torch.nn.Linear"}}, "`_target_: torch.nn.Sequential` with"),
        ({"model": {"preset": "resnet"}}, "logistic-regression, linear-regression, mlp"),
        ({"model": {"preset": ["mlp"]}}, "logistic-regression, linear-regression, mlp"),
        ({"model": "mlp"}, "logistic-regression, linear-regression, mlp"),
        ({"model": {"preset": "mlp", "hidden": [0]}}, "greater than or equal to 1"),
        ({"model": {"preset": "mlp", "depth": 3}}, "model.mlp.depth"),
        (
            {"model": {"_target_": "torch.nn.Sequential", "layers": [{"_target_": "os.system"}]}},
            "expected tags",
        ),
        ({"consilium": 2}, "should be 1"),
        ({"callback": "print"}, "not permitted"),
    ],
)
def test_a_spec_outside_the_vocabulary_is_refused(changed: dict[str, Any], reason: str) -> None:
    assert reason in refused(**changed)


def test_a_model_has_an_output_for_each_class() -> None:
    task = {"kind": "multiclass", "target": "sick", "classes": ["0", "1", "2"]}
    made = spec(task=task)
    assert isinstance(made.task, MulticlassTask)
    assert made.outputs == 3


def test_a_strategy_brings_its_own_settings() -> None:
    made = spec(federation=federation(strategy={"name": "fedavg", "local_steps": 3}))
    assert made.federation.strategy == FedAvg(name="fedavg", local_steps=3)
    with_foreign = federation(strategy={"name": "fedsgd", "local_steps": 3})
    assert "not permitted" in refused(federation=with_foreign)
