"""Whoever checks or rehearses a spec hears where its open settings are the house's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.consilium.conftest import Run

FIRST_STEPS = Path(__file__).parents[2] / "examples" / "first-steps"
NOTE = "nothing was fitted for a model of this kind"


@pytest.mark.parametrize("command", [["check"], ["rehearse", "--rounds", "1"]])
def test_the_note_is_said_beside_the_result_where_it_holds_and_only_there(
    run: Run, tmp_path: Path, command: list[str]
) -> None:
    text = (FIRST_STEPS / "experiment.yaml").read_text(encoding="utf-8")
    schema = str(FIRST_STEPS / "alpha.yaml")
    for name, more, wanted in (("flat", "", False), ("layers", "  clipping: per_layer\n", True)):
        spec = tmp_path / f"{name}.yaml"
        spec.write_text(text.replace("privacy:\n", f"privacy:\n{more}"), encoding="utf-8")
        said = run("experiment", command[0], spec, "--schema", schema, *command[1:], "--json")
        assert said.code == 0, said.err
        assert (NOTE in said.err) == wanted
        assert NOTE not in said.out
