"""A round from its documents to the bytes that leave, in this process."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from ledger.entries.operations.plans import Purpose
from ledger.entries.operations.rounds import RoundKind
from ledger.errors import LedgerError
from ledger.experiment.tensors import decode_update
from ledger.formats.documents import encode_document
from ledger.formats.strict import canonical
from node.data.holdings import Holdings, RowsAsked
from node.errors import DatasetChanged, DatasetError, JobRefused
from node.training.process.frames import Job
from node.training.rounds import one_round
from node.training.rounds.one_round import run_round
from node.training.rounds.train import Training, start_torch
from node.training.sums.clipping import FLAT, PerLayer
from node.training.sums.dense import DenseSum
from node.training.sums.layerwise import LayerwiseSum
from privacy.noise import Randomness, TestRng
from tests.node.cases import SPLIT_KEY, first_model, heart_file, heart_schema, heart_spec, site_plan

start_torch()
PRIVACY = {"epsilon": 1, "baseline": {"rounds": 3}}
PARAMETERS = 21


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "heart.data"
    shutil.copyfile(heart_file(), path)
    return path


def job_for(file: Path, kind: RoundKind = "train", **changes: Any) -> Job:
    declared = heart_schema()
    spec = changes.pop("spec", heart_spec(privacy=PRIVACY))
    fields = {
        "kind": kind,
        "round": 1,
        "spec": encode_document(spec),
        "schema_document": encode_document(declared),
        "site": canonical(site_plan(spec, declared)),
        "model": first_model(spec, declared),
        "path": str(file),
        "sha256": sha256(file.read_bytes()).hexdigest(),
        "split_key": SPLIT_KEY,
    }
    return Job.model_validate(fields | changes)


class Listener:
    """Notes intents and generators; noise is repeatable."""

    def __init__(self) -> None:
        self.intents: list[tuple[Purpose, int]] = []
        self.opened: list[tuple[str, Randomness]] = []

    def record(self, purpose: Purpose, steps: int) -> None:
        self.intents.append((purpose, steps))

    def noise(self, purpose: str) -> Randomness:
        rng = TestRng(len(self.opened))
        self.opened.append((purpose, rng))
        return rng


def run(job: Job, holdings: Holdings | None = None) -> tuple[bytes, Listener]:
    listener = Listener()
    update = run_round(job, holdings or Holdings(), listener.noise, listener.record)
    return update, listener


@pytest.mark.parametrize(
    ("kind", "size", "intents"),
    [
        ("train", PARAMETERS, [("train", 1)]),
        ("evaluate", 32, [("evaluate", 1)]),
        ("baseline", 32, [("baseline_train", 3), ("baseline_evaluate", 1)]),
    ],
)
def test_each_kind_of_round_gives_its_vector_after_its_intents(
    file: Path, kind: RoundKind, size: int, intents: list[tuple[Purpose, int]]
) -> None:
    update, listener = run(job_for(file, kind))
    assert decode_update(update, size).shape == (size,)
    assert listener.intents == intents
    assert len({purpose for purpose, _ in listener.opened}) == len(intents)
    for _, rng in listener.opened:
        with pytest.raises(Exception, match="closed"):  # the key was dropped
            rng.below(2)


def test_fedavg_sends_multiples_of_its_weight(file: Path) -> None:
    federation = {
        "datasets": ["cleveland-heart"],
        "strategy": {"name": "fedavg", "local_steps": 3},
        "sampling": "0.5",
    }
    spec = heart_spec(privacy=PRIVACY, federation=federation)
    update, listener = run(job_for(file, spec=spec))
    assert listener.intents == [("train", 3)]
    values = decode_update(update, PARAMETERS)
    assert (values % heart_schema().declared_train == 0).all()
    assert values.any()


@pytest.mark.parametrize("engine", ["exact", "fast"])
@pytest.mark.parametrize("kind", ["train", "baseline"])
def test_a_spec_decides_how_gradients_are_clipped(
    file: Path, engine: str, kind: RoundKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Training] = []
    honest = one_round.rehearse
    monkeypatch.setattr(one_round, "rehearse", lambda t: (made.append(t), honest(t)))
    for clipping in ("flat", "per_layer"):
        spec = heart_spec(privacy=PRIVACY | {"clipping": clipping, "engine": engine})
        planned = site_plan(spec, heart_schema())
        releases = [structs.replace(r, engine=engine) for r in planned.releases]
        site = structs.replace(planned, releases=tuple(releases))
        run(job_for(file, kind, spec=spec, site=canonical(site)))
    flat, by_layer = made
    assert (flat.clipping, by_layer.clipping) == (FLAT, PerLayer([20, 1]))
    if engine == "fast":
        assert [type(one.fast) for one in made] == [DenseSum, LayerwiseSum]


def test_the_same_round_is_the_same_bytes_whether_the_dataset_was_warm_or_not(file: Path) -> None:
    holdings = Holdings()
    first, _ = run(job_for(file), holdings)
    warm, _ = run(job_for(file), holdings)
    assert first == warm


def test_a_changed_or_absent_file_is_said_before_any_intent(file: Path) -> None:
    holdings = Holdings()
    job = job_for(file)
    run(job, holdings)
    file.write_bytes(file.read_bytes().replace(b"63.0", b"64.0", 1))
    listener = Listener()
    with pytest.raises(DatasetChanged) as changed:
        run_round(job, holdings, listener.noise, listener.record)
    assert changed.value.expected == job.sha256
    assert changed.value.found == sha256(file.read_bytes()).hexdigest()
    file.unlink()
    with pytest.raises(DatasetChanged, match="is gone") as gone:
        run_round(job, holdings, listener.noise, listener.record)
    assert gone.value.found is None
    assert listener.intents == []
    assert listener.opened == []


def test_a_file_that_is_overwritten_while_it_is_read_puts_no_value_into_an_error(
    file: Path,
) -> None:
    """A node logs why a round failed; an error over a value is for whoever registers."""
    job, holdings, was = job_for(file), Holdings(), file.stat()
    holdings.identity(file)  # hashed, and then the file is another one before it is read
    file.write_bytes(file.read_bytes().replace(b"63.0", b"Anna", 1))
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    listener = Listener()
    with pytest.raises(DatasetChanged, match="cannot be read as it was") as changed:
        run_round(job, holdings, listener.noise, listener.record)
    assert "Anna" not in str(changed.value)
    assert listener.intents == []


def test_documents_that_do_not_fit_together_are_refused_before_any_intent(file: Path) -> None:
    good = job_for(file)
    declared, spec = heart_schema(), heart_spec(privacy=PRIVACY)
    elsewhere = site_plan(spec, heart_schema("budapest-heart"))
    plain = site_plan(spec, declared)
    unplanned = structs.replace(plain, releases=plain.releases[1:])
    unknown = heart_spec(features=["age", "weight"])
    wider = heart_spec(features=["age"], privacy=PRIVACY)
    for wrong, kind in (
        ({"site": canonical(elsewhere)}, JobRefused),
        ({"site": canonical(unplanned)}, JobRefused),
        ({"site": b"{}"}, LedgerError),
        ({"spec": encode_document(unknown)}, LedgerError),
        ({"spec": b" " + good.spec}, LedgerError),
        ({"model": first_model(wider, declared)}, LedgerError),
    ):
        listener = Listener()
        with pytest.raises(kind):
            run_round(good.model_copy(update=wrong), Holdings(), listener.noise, listener.record)
        assert listener.intents == []


def test_a_file_that_does_not_fit_raises_what_the_administrator_needs(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("age\n1\n")
    with pytest.raises(DatasetError):
        Holdings().table(path, encode_document(heart_schema()))


def test_training_never_reads_the_evaluation_half(file: Path) -> None:
    holdings = Holdings()
    job = job_for(file)
    asked = RowsAsked(file, job.schema_document, SPLIT_KEY, job.spec, job.sha256)
    train, test = holdings.halves(asked)
    table = holdings.table(file, job.schema_document, job.sha256)
    assert train.units + test.units == table.rows == 303
    assert 0.2 < test.units / 303 < 0.4
    again = holdings.halves(asked)
    assert again[0] is train
    other = holdings.halves(replace(asked, split_key=b"o" * 32))
    assert not np.array_equal(other[0].features, train.features)
