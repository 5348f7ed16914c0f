"""What the demo's hospitals hold: real rows, under the schemas of ``examples/``.

With UCI's heart disease files: the four hospitals that collected them, each file one hospital. Without
them: scikit-learn's breast cancer table, whose 569 real rows are dealt to simulated hospitals of
unequal size and case mix by a keyed hash of each row.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from consilium.actions.written import read_written
from consilium.errors import InputError
from consilium.examples import example
from ledger.entries.cards import Contact, DatasetCard
from ledger.experiment.privacy_spec import Baseline, Metrics
from ledger.experiment.schema import Schema
from ledger.experiment.spec import ExperimentSpec

_HEART_FILES = (
    ("cleveland", "cleveland-heart", "processed.cleveland.data", 300),
    ("budapest", "budapest-heart", "processed.hungarian.data", 300),
    ("zurich-basel", "zurich-basel-heart", "processed.switzerland.data", 120),
    ("longbeach", "longbeach-heart", "processed.va.data", 200),
)
_INSTITUTIONS = {
    "cleveland": "Cleveland Clinic Foundation",
    "budapest": "Hungarian Institute of Cardiology, Budapest",
    "zurich-basel": "University Hospitals Zurich and Basel",
    "longbeach": "V.A. Medical Center, Long Beach",
}
_SIMULATED = (
    "basel", "bern", "chur", "davos", "engadin", "fribourg", "geneva", "herisau", "ilanz", "jura",
)  # fmt: skip
_DEAL_KEY = b"consilium demo: which simulated hospital a row goes to"


@dataclass(frozen=True, slots=True)
class DemoSite:
    """A hospital of the demo: its name, its file, the schema it declares, and its card."""

    hospital: str
    data: Path
    schema: Schema
    card: DatasetCard


@dataclass(frozen=True, slots=True)
class DemoData:
    """All hospitals, and the experiment to run on them.

    Attributes:
        about: one sentence on where the rows come from.
    """

    about: str
    sites: tuple[DemoSite, ...]
    spec: ExperimentSpec


def heart_disease(folder: Path) -> DemoData:
    """The four hospitals of UCI heart disease.

    Raises:
        InputError: a file is not there.
    """
    schema = read_written(example("heart-disease", "schema.yaml"), Schema)
    card = read_written(example("heart-disease", "card.yaml"), DatasetCard)
    sites = []
    for hospital, dataset, name, rows in _HEART_FILES:
        path = folder / name
        if not path.is_file():
            wanted = ", ".join(file for _, _, file, _ in _HEART_FILES)
            raise InputError(
                f"{folder} holds no {name}; --data wants UCI heart disease: {wanted} "
                "(archive.ics.uci.edu/dataset/45)"
            )
        declared = schema.model_copy(update={"dataset": dataset, "declared_rows": rows})
        controller = Contact(name=_INSTITUTIONS[hospital])
        own = card.model_copy(update={"controller": controller})
        sites.append(DemoSite(hospital, path.resolve(), declared, own))
    spec = read_written(example("heart-disease", "experiment.yaml"), ExperimentSpec)
    about = "UCI heart disease: the files of the four hospitals that collected them"
    return DemoData(about, tuple(sites), spec)


def breast_cancer(folder: Path, hospitals: int) -> DemoData:
    """Simulated hospitals that share scikit-learn's breast cancer table.

    Args:
        folder: where their files are written.
        hospitals: 2 .. 10.

    Raises:
        InputError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_breast_cancer
    except ImportError:
        raise InputError(
            "without --data the demo needs scikit-learn's table: install the extra demo "
            "(make setup does)"
        ) from None
    schema = read_written(example("breast-cancer", "schema.yaml"), Schema)
    card = read_written(example("breast-cancer", "card.yaml"), DatasetCard)
    table = load_breast_cancer()
    wanted = [column.name for column in schema.columns[:-1]]
    at = [list(table.feature_names).index(name.replace("_", " ")) for name in wanted]
    rows = [
        [*(f"{row[index]:g}" for index in at), "benign" if label else "malignant"]
        for row, label in zip(table.data, table.target, strict=True)
    ]
    names = _SIMULATED[:hospitals]
    dealt: dict[str, list[list[str]]] = {name: [] for name in names}
    for row in rows:
        dealt[names[_deal(row, hospitals)]].append(row)
    folder.mkdir(parents=True, exist_ok=True)
    sites = []
    for index, name in enumerate(names):
        path = folder / f"{name}.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([[*wanted, schema.columns[-1].name], *dealt[name]])
        declared = schema.model_copy(
            update={"dataset": f"{name}-cells", "declared_rows": _declared(index, hospitals)}
        )
        sites.append(DemoSite(name, path.resolve(), declared, card))
    spec = read_written(example("breast-cancer", "experiment.yaml"), ExperimentSpec)
    about = f"scikit-learn's breast cancer table, dealt to {hospitals} simulated hospitals"
    return DemoData(about, tuple(sites), spec)


def demo_spec(
    data: DemoData, *, epsilon: float, rounds: int, secure_aggregation: bool = False
) -> ExperimentSpec:
    """The experiment for these hospitals: all of them in every round, local models measured too.

    Raises:
        InputError: epsilon or the number of rounds is out of range.
    """
    from consilium.experiment import Experiment

    datasets = tuple(site.schema.dataset for site in data.sites)
    fields = data.spec.model_dump(mode="json", by_alias=True)
    fields["federation"] |= {
        "datasets": datasets,
        "rounds": rounds,
        "quorum": len(datasets),
        "round_timeout_s": 120,
        "secure_aggregation": secure_aggregation,
    }
    # A demo's hospitals have few test patients: few bins and a larger share for the measures, or the
    # noise would drown most of what the table is to show.
    metrics = Metrics(bins=8, noise_sd=Decimal(1), share=Decimal("0.3"))
    fields["privacy"] |= {
        "epsilon": f"{epsilon:g}",
        "metrics": metrics.model_dump(mode="json"),
        "baseline": Baseline().model_dump(mode="json"),
    }
    return Experiment.from_fields(fields).spec


def _shares(hospitals: int) -> list[float]:
    """Size of each simulated hospital: the first about 1.8 times the last."""
    weights = [1.8 - 0.8 * index / (hospitals - 1) for index in range(hospitals)]
    return [weight / sum(weights) for weight in weights]


def _declared(index: int, hospitals: int) -> int:
    """A round number near the expected size, which is public; not a count."""
    return max(10, round(569 * _shares(hospitals)[index] / 10) * 10)


def _deal(row: Sequence[str], hospitals: int) -> int:
    """Which hospital a row goes to: by hash of its content, malignant cases tilted to later ones."""
    digest = hashlib.blake2b("\n".join(row).encode(), key=_DEAL_KEY).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    tilt = 0.6 if row[-1] == "malignant" else -0.35
    shares = [
        share * (1 + tilt * (2 * index / (hospitals - 1) - 1))
        for index, share in enumerate(_shares(hospitals))
    ]
    total, reached = sum(shares), 0.0
    for index, share in enumerate(shares):
        reached += share / total
        if place < reached:
            return index
    return hospitals - 1
