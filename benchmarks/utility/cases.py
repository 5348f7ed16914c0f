"""The public tables, encoded as nodes encode them, and how patients are held out.

Nothing is copied into this repository; each function takes the folder with the files as published.
Declared sizes are the published counts.
"""

from __future__ import annotations

import csv
import gzip
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from sklearn.model_selection import train_test_split

from benchmarks.utility.federation import Rows
from ledger.experiment.schema import Schema
from ledger.experiment.spec import BinaryTask
from node.data.encode import features, targets
from node.data.intake import Table, read_table

SCHEMAS = Path(__file__).parent / "schemas"
HEART = ("cleveland", "hungarian", "switzerland", "va")
DEAD_OR_HOSPICE = frozenset({"11", "13", "14", "19", "20", "21"})
SIMULATED_SITES = 10
_WIDTH = 10  # the columns of FLamby's task
_UNKNOWN = frozenset({"0", "9"})

Mask = npt.NDArray[np.bool_]


def heart(folder: Path) -> Rows:
    """Four hospitals; the 740 rows of FLamby's Fed-Heart-Disease, without its columns slope, ca, thal."""
    plain = _schema("heart")
    task = {"kind": "binary", "target": "num", "positive": ["1", "2", "3", "4"]}
    names = tuple(c["name"] for c in plain["columns"] if c["name"] != "num")
    parts = []
    for hospital in HEART:
        path = folder / f"processed.{hospital}.data"
        lines = path.read_text().split()
        whole = np.array(["?" not in line.split(",")[:_WIDTH] for line in lines])
        parts.append(_encoded(path, plain, task, names, whole))
    counts = [len(part[0]) for part in parts]
    return Rows(
        features=np.concatenate([part[0] for part in parts]),
        targets=np.concatenate([part[1] for part in parts]),
        units=np.arange(sum(counts)),
        sites=np.repeat(np.arange(len(parts)), counts),
        names=HEART,
        declared=tuple(counts),
        test_percent=34,
        schema=plain,
        spec=_spec("heart", task, names),
    )


def ist(folder: Path, by: str, *, country: bool = False) -> Rows:
    """The International Stroke Trial's patients with a known outcome; dead or dependent at six months.

    Args:
        folder: with ``IST_corrected.csv.gz``.
        by: ``COUNTRY`` or ``HOSPNUM``, what a node is.
        country: with the country as one more input, over the trial's public list.
    """
    plain = _schema("ist")
    if not country:
        plain["columns"] = [c for c in plain["columns"] if c["name"] != "COUNTRY"]
    task = {"kind": "binary", "target": "OCCODE", "positive": ["1", "2"]}
    names = tuple(c["name"] for c in plain["columns"] if c["name"] != "OCCODE")
    path = folder / "IST_corrected.csv.gz"
    raw = _columns(path, (by, "OCCODE", "EXPDD"))
    known = ~np.isin(raw["OCCODE"], list(_UNKNOWN))
    inputs, wanted = _encoded(path, plain, task, names, known)
    places, sites, counts = np.unique(raw[by][known], return_inverse=True, return_counts=True)
    return Rows(
        features=inputs,
        targets=wanted,
        units=np.arange(len(inputs)),
        sites=sites,
        names=tuple(f"{by.lower()[:4]}-{place.lower()}" for place in places),
        declared=tuple(int(count) for count in counts),
        test_percent=30,
        schema=plain,
        spec=_spec("ist", task, names),
        reference=raw["EXPDD"][known].astype(np.float64),
    )


def diabetes(folder: Path, positive: tuple[str, ...]) -> Rows:
    """Hospital stays of diabetics not discharged to death or hospice; readmission, the patient as the unit.

    The file names no hospital: ten sites are simulated by a hash of the patient's number.

    Args:
        folder: with ``diabetic_data.csv.gz``.
        positive: ``readmitted`` codes to predict.
    """
    plain = _schema("diabetes")
    task = {"kind": "binary", "target": "readmitted", "positive": positive}
    skipped = ("patient_nbr", "readmitted")
    names = tuple(c["name"] for c in plain["columns"] if c["name"] not in skipped)
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "stays.csv"
        _without_dead(folder / "diabetic_data.csv.gz", path)
        raw = _columns(path, ("patient_nbr",))["patient_nbr"]
        inputs, wanted = _encoded(path, plain, task, names, np.ones(len(raw), dtype=bool))
    patients, units = np.unique(raw, return_inverse=True)
    sites = np.array(
        [int.from_bytes(sha256(p.encode()).digest()[:8]) % SIMULATED_SITES for p in patients]
    )
    order = np.argsort(units, kind="stable")
    return Rows(
        features=inputs[order],
        targets=wanted[order],
        units=units[order],
        sites=sites,
        names=tuple(f"simulated-{index}" for index in range(SIMULATED_SITES)),
        declared=tuple(int(n) for n in np.bincount(sites, minlength=SIMULATED_SITES)),
        test_percent=30,
        schema=plain,
        spec=_spec("diabetes", task, names),
    )


def flamby(rows: Rows) -> Mask:
    """The patients that FLamby keeps for its test: 104, 89, 16 and 45 of the four hospitals."""
    return _by_hospital(rows, 43)


def random_heart(rows: Rows, number: int) -> Mask:
    """Split ``number`` of the same kind as FLamby's, another seed."""
    return _by_hospital(rows, 1000 + number)


def random_patients(rows: Rows, number: int) -> Mask:
    """The declared share of each site's patients, drawn anew for each ``number``."""
    generator = np.random.default_rng(number)
    held_out = np.zeros(len(rows.sites), dtype=bool)
    for index in range(len(rows.names)):
        members = np.flatnonzero(rows.sites == index)
        held_out[generator.permutation(members)[: len(members) * rows.test_percent // 100]] = True
    return held_out


def _by_hospital(rows: Rows, seed: int) -> Mask:
    held_out = np.zeros(len(rows.sites), dtype=bool)
    for index in range(len(rows.names)):
        members = np.flatnonzero(rows.sites == index)
        labels = rows.targets[members]
        both = min((labels == 0).sum(), (labels == 1).sum()) > 2  # not Switzerland's
        _, test = train_test_split(
            members,
            train_size=0.66,
            test_size=0.34,
            random_state=seed,
            shuffle=True,
            stratify=labels if both else None,
        )
        held_out[test] = True
    return held_out


def _schema(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((SCHEMAS / f"{name}.yaml").read_text())
    return found


def _spec(name: str, task: dict[str, Any], names: tuple[str, ...]) -> dict[str, object]:
    return {
        "consilium": 1,
        "name": name,
        "title": name,
        "purpose": "To measure what is lost to privacy.",
        "lawful_basis": "Published data",
        "until": "2099-12-31",
        "task": task,
        "features": names,
        "model": {"preset": "logistic-regression"},
    }


def _encoded(
    path: Path, plain: dict[str, Any], task: dict[str, Any], names: tuple[str, ...], keep: Mask
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    schema = Schema.model_validate(plain | {"dataset": "whole", "declared_rows": len(keep)})
    table: Table = read_table(path, schema)
    wanted, known = targets(table, schema, BinaryTask.model_validate(task))
    if not known[keep].all():
        raise SystemExit(f"{path}: {(~known[keep]).sum()} rows have no target")
    return features(table, schema, names)[keep], wanted[keep].astype(np.float32)


def _columns(path: Path, names: tuple[str, ...]) -> dict[str, npt.NDArray[Any]]:
    with _opened(path) as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([row[name] for row in rows]) for name in names}


def _without_dead(source: Path, target: Path) -> None:
    with _opened(source) as file, target.open("w", newline="", encoding="utf-8") as out:
        reader = csv.DictReader(file)
        writer = csv.DictWriter(out, reader.fieldnames or ())
        writer.writeheader()
        writer.writerows(
            row for row in reader if row["discharge_disposition_id"] not in DEAD_OR_HOSPICE
        )


def _opened(path: Path) -> Any:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")
