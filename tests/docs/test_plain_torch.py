"""The page's own lines load a model that a federation releases, and score as our network does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ledger.experiment.average import initial_model
from ledger.experiment.inputs import compose
from ledger.experiment.network_spec import Network, parameter_shapes
from ledger.experiment.schema import Schema
from ledger.experiment.spec import ExperimentSpec
from ledger.experiment.tensors import pack_model
from node.data.encode import features
from node.data.intake import Table
from node.training.networks.modules import build, load_flat
from tests.docs import pages

torch = pytest.importorskip("torch")


def test_a_released_model_loads_by_the_lines_that_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = pages.section("docs/researcher.md", "Codes and series")
    written, code = re.findall(r"```(?:yaml|python)\n(.*?)```", shown, re.DOTALL)
    fields = yaml.safe_load(written)
    example = Path(pages.__file__).parents[2] / "examples" / "vital-signs"
    text = yaml.safe_load((example / "experiment.yaml").read_text())
    text["federation"] |= {"strategy": {"name": "fedsgd", "learning_rate": 1}}
    spec = ExperimentSpec.model_validate(text | fields)
    schema = Schema.model_validate(yaml.safe_load((example / "schema.yaml").read_text()))
    tree = compose(spec.model, schema, spec.features, spec.outputs)
    assert isinstance(tree, Network)
    weights = initial_model(spec, tree)
    (tmp_path / "model.safetensors").write_bytes(pack_model(parameter_shapes(tree), weights))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code, names)

    draw = np.random.default_rng(1)
    columns: dict[str, Any] = {
        name: draw.uniform(70, 100, 6) for name in spec.features if name != "ward"
    }
    columns["ward"] = np.array([0, 7, -1, 3, 3, 1], dtype=np.int32)
    table = Table(dataset="ward-vitals", rows=6, columns=columns, patients=None)
    rows = torch.from_numpy(features(table, schema, spec.features, frozenset(["ward"])))
    ours = build(tree)
    load_flat(ours, weights)
    wanted = torch.sigmoid(ours(rows))[:, 0].double()
    age, ward, vitals = rows[:, 0].double(), rows[:, 1].long(), rows[:, 2:].double()
    assert ward.tolist() == [1, 8, 0, 4, 4, 2]
    found = names["score"](age, ward, vitals.reshape(6, 2, 4))
    assert torch.allclose(found, wanted, atol=1e-6)
