"""A model with an embedding and a series, from a spec file to a released model, through real nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ledger.experiment.average import initial_model
from ledger.experiment.network_spec import parameter_shapes
from ledger.experiment.plan.shape import network_of
from ledger.experiment.schema import Schema
from ledger.experiment.spec import ExperimentSpec
from ledger.experiment.tensors import unpack_model
from node.training.networks.modules import build, load_flat
from node.training.process.trainer import WorkerTrainer
from node.training.process.worker import Worker
from tests.node.town import Town
from tests.patience import PATIENCE_S

EXAMPLE = Path(__file__).parents[3] / "examples" / "vital-signs"
GRU = {"_target_": "torch.nn.GRU", "input_size": 4, "hidden_size": 4}


def schema_of(dataset: str) -> Schema:
    written = yaml.safe_load((EXAMPLE / "schema.yaml").read_text())
    return Schema.model_validate(written | {"dataset": dataset, "declared_rows": 60})


def table_of(path: Path, seed: int) -> Path:
    """Two rows for each of sixty patients, in no order and of no meaning."""
    draw = np.random.default_rng(seed)
    schema = schema_of("x")
    wards: Any = next(c for c in schema.columns if c.name == "ward")
    lines = [",".join(column.name for column in schema.columns)]
    for row in range(120):
        vitals = [*draw.integers(50, 120, 8), *draw.integers(90, 180, 8)]
        ward = draw.choice([*wards.values, ""])
        fields = [f"p{row % 60}", draw.integers(18, 99), ward, *vitals, draw.integers(0, 2)]
        lines.append(",".join(map(str, fields)))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.process
def test_two_hospitals_train_a_model_that_embeds_codes_and_reads_series_in_both_engines(
    tmp_path: Path,
) -> None:
    written = yaml.safe_load((EXAMPLE / "experiment.yaml").read_text())
    series = written["model"]["series"][0]
    series |= {"layers": [*series["layers"], GRU], "pool": "last"}
    names = ["basel-heart", "bern-heart"]
    written["federation"] = {
        "datasets": names,
        "rounds": 2,
        "strategy": {"name": "fedsgd", "learning_rate": 1},
    }
    written["privacy"] = {"epsilon": 8, "baseline": {"rounds": 2}}
    spec = ExperimentSpec.model_validate(written)
    with Town(tmp_path) as town:
        for seed, name in enumerate(names):
            hospital = name.removesuffix("-heart")
            table = table_of(tmp_path / f"{name}.csv", seed)
            town.offer(hospital, table, schema_of(name), epsilon=9.0)
            town.start_node(hospital, WorkerTrainer(Worker()))
        experiment = town.propose(spec)
        for name in names:
            town.approve(experiment, name)
        town.until(lambda: town.experiment(experiment).status == "released", 2 * PATIENCE_S)
        releases = town.experiment(experiment).plan.sites[0].releases
        engines = {one.purpose: one.engine for one in releases}
        assert (engines["train"], engines["baseline_train"]) == ("exact", "fast")
        released = town.experiment(experiment).model
        assert released is not None
        tree = network_of(spec, schema_of(names[0]))
        model = unpack_model(town.coordinator.blobs.get(released), parameter_shapes(tree))
    assert np.isfinite(model).all()
    assert np.linalg.norm(model - initial_model(spec, tree)) > 0.0
    load_flat(build(tree), model)
