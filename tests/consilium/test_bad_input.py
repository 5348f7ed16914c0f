"""Bad input: one clear message, exit code 2, and nothing half done.

The same files go to ``dataset check`` and to ``dataset register`` against a real coordinator, whose log
and whose node's private register must be as before.
"""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from consilium.actions.reading import offline_view
from node.register.private import PRIVATE, PrivateRegister
from tests.consilium.conftest import Live, Run

SCHEMA = """\
consilium: 1
dataset: basel-heart
declared_rows: 40
columns:
  - {name: age, type: number, low: 20, high: 90, unit: years}
  - {name: chol, type: number, low: 100, high: 600, unit: mg/dl}
  - {name: cp, type: category, values: [typical, atypical]}
  - {name: sick, type: category, values: ["0", "1"]}
"""
SPEC = """\
consilium: 1
name: first
title: Sick or not
purpose: To see what is refused.
lawful_basis: a test
until: 2035-12-31
task: {kind: binary, target: sick, positive: ["1"]}
features: [age, chol, cp]
model: {preset: logistic-regression}
federation: {datasets: [basel-heart], rounds: 2}
privacy: {epsilon: 8}
"""


def rows(change: int | None = None, line: str = "") -> str:
    """A CSV that fits the schema, but for one row (counted from 1, the header being row 1)."""
    lines = ["age,chol,cp,sick"]
    lines += [f"{30 + n},{200 + n},{'typical' if n % 2 else 'atypical'},{n % 2}" for n in range(40)]
    if change is not None:
        lines[change - 1] = line
    return "\n".join(lines) + "\n"


BAD_FILES = {
    "a missing column": (
        rows().replace("age,chol,cp,sick", "age,cholesterol,cp,sick"),
        ['column "chol"', "basel-heart"],
    ),
    "a value outside refuse": (
        rows(17, "61,999,typical,1"),
        ['column "chol" row 17', "999", "100..600 mg/dl"],
    ),
    "an unknown category": (
        rows(9, "61,300,severe,1"),
        ['column "cp" row 9', "severe"],
    ),
    "an empty file": ("", ["is empty"]),
    "a NaN": (rows(5, "nan,300,typical,1"), ['column "age" row 5', "nan"]),
    "far more rows than declared": (
        rows() + rows().split("\n", 1)[1] * 2,
        ["120 rows", "declares 40"],
    ),
}

BAD_SPECS = {
    "a negative epsilon": (
        SPEC.replace("epsilon: 8", "epsilon: -1"),
        ["privacy.epsilon", "greater than 0"],
    ),
    "an unknown feature": (
        SPEC.replace("[age, chol, cp]", "[age, chol, cp, thal]"),
        ["features", "thal is not a column of basel-heart", "age, chol, cp"],
    ),
    "a model over the size limit": (
        SPEC.replace("{preset: logistic-regression}", "{preset: mlp, hidden: [4000, 4000]}"),
        ["model", "parameters, over the limit of 5,000,000"],
    ),
    "a last day that is over": (
        SPEC.replace("2035-12-31", "2020-12-31"),
        ["until: 2020-12-31 is over"],
    ),
    "a foreign layer as the model": (
        SPEC.replace("{preset: logistic-regression}", "{_target_: torch.nn.Evil}"),
        ["model: give `preset` as one of logistic-regression", "torch.nn.Sequential"],
    ),
    "an unknown preset": (
        SPEC.replace("{preset: logistic-regression}", "{preset: resnet}"),
        ["model: give `preset` as one of logistic-regression, linear-regression, mlp"],
    ),
    "an unknown field": (SPEC + "colour: blue\n", ["colour", "not permitted"]),
    "a field twice": (SPEC + "name: second\n", ["line 12", "'name' is given twice"]),
    "no YAML": (SPEC + "  : : :\n", ["line 12"]),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_does_not_fit_is_refused_locally(case: str, run: Run, tmp_path: Path) -> None:
    text, words = BAD_FILES[case]
    data, schema = tmp_path / "data.csv", tmp_path / "schema.yaml"
    data.write_text(text)
    schema.write_text(SCHEMA)
    said = run("dataset", "check", "--data", data, "--schema", schema)
    assert said.code == 2
    assert said.out == ""
    assert said.err.startswith("consilium: ")
    assert said.err.count("\n") == 1
    for word in words:
        assert word in said.err


@pytest.mark.parametrize("case", BAD_SPECS)
def test_a_spec_that_is_not_sound_is_refused(case: str, run: Run, tmp_path: Path) -> None:
    text, words = BAD_SPECS[case]
    spec, schema = tmp_path / "spec.yaml", tmp_path / "schema.yaml"
    spec.write_text(text)
    schema.write_text(SCHEMA)
    said = run("experiment", "check", spec, "--schema", schema)
    assert said.code == 2
    assert said.out == ""
    assert said.err.count("\n") == 1
    for word in words:
        assert word in said.err


def test_the_good_file_and_the_good_spec_pass(run: Run, tmp_path: Path) -> None:
    data, spec, schema = tmp_path / "data.csv", tmp_path / "spec.yaml", tmp_path / "schema.yaml"
    data.write_text(rows())
    spec.write_text(SPEC)
    schema.write_text(SCHEMA)
    counts = json.loads(run("dataset", "check", "--data", data, "--schema", schema, "--json").out)
    assert (counts["rows"], counts["declared_rows"]) == (40, 40)
    plan = json.loads(run("experiment", "check", spec, "--schema", schema, "--json").out)
    assert plan["parameters"] == 5
    assert plan["sites"][0]["epsilon"] <= 8


@pytest.mark.process
def test_nothing_is_half_registered_or_half_proposed(run: Run, live: Live, tmp_path: Path) -> None:
    secret = ("--passphrase-file", live.passphrase)
    basel, ada = tmp_path / "basel", tmp_path / "ada"
    assert run("member", "join", live.invitation("basel"), "--home", basel, *secret).code == 0
    assert run("member", "join", live.invitation("institute"), "--home", ada, *secret).code == 0
    data, schema = tmp_path / "data.csv", tmp_path / "schema.yaml"
    schema.write_text(SCHEMA)
    for text, _ in BAD_FILES.values():
        data.write_text(text)
        said = run(
            "dataset", "register", "--data", data, "--schema", schema, "--epsilon", 8,
            "--home", basel, *secret,
        )  # fmt: skip
        assert said.code == 2
        assert said.err.count("\n") == 1
    data.write_text(rows())
    for flag, value in (
        ("--epsilon", -1), ("--epsilon", "nan"), ("--epsilon", "inf"),
        ("--delta", 0.5), ("--delta", "nan"),
    ):  # fmt: skip
        flags = {"--epsilon": 8, flag: value}
        said = run(
            "dataset", "register", "--data", data, "--schema", schema, "--home", basel, *secret,
            *(word for pair in flags.items() for word in pair),
        )  # fmt: skip
        assert said.code == 2, said
        assert flag.removeprefix("--") in said.err
    with offline_view(live.home) as view:
        before = view.state.size
        assert not view.state.cells
        assert not view.state.datasets
    with closing(PrivateRegister.open(basel / "node" / PRIVATE)) as private:
        assert not private.view.datasets
        assert not private.view.cells
        assert not private.datasets.unfinished()

    said = run(
        "dataset", "register", "--data", data, "--schema", schema, "--epsilon", 8, "--home", basel,
        *secret,
    )  # fmt: skip
    assert said.code == 0, said.err
    spec = tmp_path / "spec.yaml"
    for text, _ in BAD_SPECS.values():
        spec.write_text(text)
        assert run("experiment", "propose", spec, "--home", ada, *secret).code == 2
    with offline_view(live.home) as view:
        assert view.state.size == before + 2  # the cell and the dataset, nothing else
        assert not view.state.experiments
