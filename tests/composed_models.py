"""Models that embed codes and read series, on a small schema: what tests of several packages ask for."""

from __future__ import annotations

from typing import Any

from ledger.experiment.schema import Schema
from ledger.experiment.spec import BinaryTask, ExperimentSpec

CODES = [str(code) for code in range(9)]
STEPS = 8
NUMBERS = [f"{kind}_{hour:02}" for kind in ("hr", "bp") for hour in range(STEPS)]
TASK = BinaryTask(kind="binary", target="ill", positive=("1",))
CONV: list[dict[str, Any]] = [
    {
        "_target_": "torch.nn.Conv1d",
        "in_channels": 2,
        "out_channels": 8,
        "kernel_size": 3,
        "padding": 1,
    },
    {"_target_": "torch.nn.GroupNorm", "num_groups": 2, "num_channels": 8},
    {"_target_": "torch.nn.ReLU"},
    {
        "_target_": "torch.nn.Conv1d",
        "in_channels": 8,
        "out_channels": 4,
        "kernel_size": 3,
        "stride": 2,
    },
]
GRU: list[dict[str, Any]] = [{"_target_": "torch.nn.GRU", "input_size": 2, "hidden_size": 8}]
BOTH = [CONV[0], {"_target_": "torch.nn.Tanh"}, GRU[0] | {"input_size": 8}]
WARD = {"column": "ward", "num_embeddings": 10, "embedding_dim": 3}


def schema(**changes: Any) -> Schema:
    columns = [
        {"name": "age", "type": "number", "low": 0, "high": 100, "missing": "indicator"},
        {"name": "ward", "type": "category", "values": CODES, "missing": "impute"},
        *({"name": name, "type": "number", "low": 0, "high": 200} for name in NUMBERS),
        {"name": "sex", "type": "category", "values": ["f", "m"]},
        {"name": "ill", "type": "category", "values": ["0", "1"]},
    ]
    fields = {"consilium": 1, "dataset": "ward", "declared_rows": 100, "columns": columns}
    return Schema.model_validate(fields | changes)


def series(layers: list[dict[str, Any]], pool: str) -> dict[str, Any]:
    return {"channels": ["hr_00", "bp_00"], "steps": STEPS, "layers": layers, "pool": pool}


def spec(model: dict[str, Any], **privacy: Any) -> ExperimentSpec:
    return ExperimentSpec.model_validate(
        {
            "consilium": 1,
            "name": "composed",
            "title": "Composed",
            "purpose": "Try it.",
            "lawful_basis": "No personal data",
            "until": "2100-01-01",
            "task": TASK.model_dump(),
            "features": ["age", "ward", *NUMBERS, "sex"],
            "model": model,
            "federation": {"datasets": ["ward"]},
            "privacy": {"epsilon": 1} | privacy,
        }
    )


MODELS: dict[str, dict[str, Any]] = {
    "embedding": {"preset": "mlp", "hidden": [4], "embeddings": [WARD]},
    "conv1d": {"preset": "mlp", "hidden": [4], "series": [series(CONV, "flatten")]},
    "gru": {"preset": "mlp", "hidden": [4], "series": [series(GRU, "last")]},
    "all": {
        "_target_": "torch.nn.Sequential",
        "embeddings": [WARD],
        "series": [series(BOTH, "mean")],
        "layers": [
            {"_target_": "torch.nn.LayerNorm", "normalized_shape": 15},
            {"_target_": "torch.nn.Linear", "in_features": 15, "out_features": 1},
        ],
    },
}
