"""Parsers of documents and numbers: specs, schemas, plans, cards, updates, models, tables."""

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import yaml
from pydantic import BaseModel

from consilium.actions.written import parse_written
from consilium.errors import InputError
from consilium.experiment import Experiment, imagined_site
from ledger.copies.blobs import blob_ref
from ledger.entries.cards import Card, DatasetCard, MemberCard, open_card, seal_card
from ledger.entries.operations.plans import Plan
from ledger.errors import MalformedInput, PlanRefused
from ledger.experiment.network_spec import Linear, Mlp, Sequential, expand, parameter_shapes
from ledger.experiment.plan.check import check_plan
from ledger.experiment.plan.compilation import compile_plan
from ledger.experiment.plan.shape import network_of
from ledger.experiment.plan.sites import sites_from
from ledger.experiment.schema import Schema
from ledger.experiment.spec import ExperimentSpec
from ledger.experiment.tensors import decode_update, encode_update, pack_model, unpack_model
from ledger.experiment.updates import judge_update
from ledger.formats.documents import encode_document, parse_document
from ledger.formats.strict import canonical, parse_canonical
from node.data.intake import read_table
from node.data.patient_spend import Allowance, PatientSpend, members_of
from node.errors import DatasetError, PatientSpendUnreadable
from tests.federation import small_schema
from tests.fuzz import samples
from tests.fuzz.parser import Parser

VALUES = 5
_SHAPES = (("0.weight", (1, 4)), ("0.bias", (1,)))
_YAML = "what people write has many spellings; its canonical document reads back as the same value"


@cache
def spec() -> ExperimentSpec:
    """The spec that was played."""
    return samples.federation().spec_of(samples.experiment())


@cache
def _specs() -> list[bytes]:
    made = samples.federation()
    names = spec().federation.datasets
    others = (
        made.spec(names, name="mlp").model_copy(update={"model": Mlp(preset="mlp")}),
        made.spec(names, strategy={"name": "fedavg"}, sampling="0.5"),
    )
    return [encode_document(one) for one in (spec(), *others)]


@cache
def _schemas() -> list[bytes]:
    return [encode_document(small_schema("basel-heart"))]


def _plans() -> list[bytes]:
    return [canonical(samples.federation().experiment(samples.experiment()).plan)]


def _network() -> Sequential:
    return Sequential(layers=(Linear(in_features=4, out_features=1),))


def _planned(data: bytes) -> Plan:
    found = parse_document(data, ExperimentSpec)
    schema = small_schema("basel-heart")
    network_of(found, schema)
    first = blob_ref(b"")
    return compile_plan(found, (imagined_site(schema, found),), first)


def _checked_plan(data: bytes) -> None:
    made = samples.federation()
    names = spec().federation.datasets
    sites = sites_from(made.state, {name: made.schema(name) for name in names}, names)
    check_plan(spec(), sites, parse_canonical(data, Plan))


def _expanded(data: bytes) -> object:
    tree = expand(parse_document(data, Sequential), 4, 1)
    return parameter_shapes(tree)


def _written(model: type[BaseModel]) -> Callable[[bytes], BaseModel]:
    return lambda data: parse_written(data, model, "file")


def _reads_back(value: BaseModel) -> None:
    data = encode_document(value)
    if parse_document(data, type(value)) != value:
        raise AssertionError(f"{value!r} does not read back")


def _as_yaml(documents: list[bytes]) -> list[bytes]:
    plain = [yaml.safe_load(document) for document in documents]
    return documents + [yaml.safe_dump(one, sort_keys=False).encode() for one in plain]


def _cards() -> list[bytes]:
    full = DatasetCard(title="Hearts", purpose="Care", disclosure="use")
    return [seal_card(card, bytes(32)).blob for card in (full, MemberCard(name="Ada"))]


def _open_card(data: bytes) -> Card:
    commitment = hashlib.sha256(data).hexdigest()
    kind: type[Card] = DatasetCard if b'"kind":"dataset"' in data else MemberCard
    return open_card(data, commitment, kind)


def _open_sealed(data: bytes) -> tuple[bytes, Card]:
    return data[1:33], _open_card(data)


def _judged_update(data: bytes) -> object:
    made = samples.federation()
    plan = made.experiment(samples.experiment()).plan
    return judge_update(plan, plan.sites[0], "train", 10, blob_ref(data), data)


def _allowances() -> list[bytes]:
    members = members_of([bytes([number]) * 32 for number in (1, 2)])
    some = PatientSpend(members, np.array([7, 2**40]))
    return [
        Allowance(2**41, 2**40, lifetime, here).encode()
        for lifetime in (some, PatientSpend.nobody())
        for here in (some, PatientSpend.nobody())
    ]


def _update_samples() -> list[bytes]:
    return [encode_update(np.arange(VALUES, dtype=np.int64) - 2)]


def _model_samples() -> list[bytes]:
    return [pack_model(_SHAPES, np.linspace(-1, 1, VALUES))]


def _tables() -> list[bytes]:
    csv = b"age,chol,sick\n" + b"".join(
        b"%d,%d.5,%d\n" % (20 + n, 150 + n, n % 2) for n in range(20)
    )
    parquet = io.BytesIO()
    pl.read_csv(csv, schema_overrides={"sick": pl.String}).write_parquet(parquet)
    return [csv, csv.replace(b"\n", b"\r\n"), gzip.compress(csv), parquet.getvalue()]


def _read_table(data: bytes) -> object:
    path = samples.in_file("table", data)
    return read_table(path, small_schema("basel-heart"), max_bytes=2**20, max_rows=10_000)


def _from_file(data: bytes) -> Any:
    return Experiment.from_yaml(samples.in_file("spec.yaml", data)).spec


_DOCUMENT = ("ledger.formats.documents.parse_document",)

PARSERS: tuple[Parser, ...] = (
    Parser(
        "spec", _DOCUMENT, _specs, lambda data: parse_document(data, ExperimentSpec),
        (MalformedInput,), encode_document, weight=2,
    ),
    Parser(
        "schema", _DOCUMENT, _schemas, lambda data: parse_document(data, Schema), (MalformedInput,),
        encode_document,
    ),
    Parser(
        "network", _DOCUMENT, lambda: [encode_document(_network())],
        lambda data: parse_document(data, Sequential), (MalformedInput,), encode_document,
    ),
    Parser(
        "expanded-network", (), lambda: [encode_document(_network())], _expanded,
        (MalformedInput, ValueError), without="it is the shapes of a network that was read",
    ),
    Parser(
        "plan", (), _plans, lambda data: parse_canonical(data, Plan), (MalformedInput,), canonical,
    ),
    Parser(
        "checked-plan", (), _plans, _checked_plan, (MalformedInput, PlanRefused),
        without="it is a comparison", weight=100,
    ),
    Parser(
        "spec-to-plan", (), _specs, _planned, (MalformedInput, PlanRefused),
        without="the plan of a spec has its own encoding", weight=300,
    ),
    Parser(
        "written-spec",
        ("consilium.actions.written.parse_written", "consilium.actions.written.read_written",
         "consilium.experiment.Experiment.from_yaml"),
        lambda: _as_yaml(_specs()), _from_file, (InputError,), without=_YAML, fixpoint=_reads_back,
        weight=10,
    ),
    Parser(
        "written-schema", (), lambda: _as_yaml(_schemas()), _written(Schema), (InputError,),
        without=_YAML, fixpoint=_reads_back, weight=10,
    ),
    Parser(
        "card", ("ledger.entries.cards.open_card",), _cards, _open_sealed, (MalformedInput,),
        lambda opened: seal_card(opened[1], opened[0]).blob,
    ),
    Parser(
        "update", ("ledger.experiment.tensors.decode_update",), _update_samples,
        lambda data: decode_update(data, VALUES), (MalformedInput,), encode_update,
    ),
    Parser(
        "judged-update", (), _update_samples, _judged_update, (), without="every blob has a verdict",
    ),
    Parser(
        "allowance",
        ("node.data.patient_spend.Allowance.decode", "node.data.patient_spend.PatientSpend.decode"),
        _allowances, Allowance.decode, (PatientSpendUnreadable,), Allowance.encode,
    ),
    Parser(
        "model", ("ledger.experiment.tensors.unpack_model",), _model_samples,
        lambda data: unpack_model(data, _SHAPES), (MalformedInput,),
        lambda flat: pack_model(_SHAPES, flat),
    ),
    Parser(
        "table", ("node.data.intake.read_table",), _tables, _read_table, (DatasetError,),
        without="CSV and Parquet have many spellings; a table is never written", weight=30,
    ),
)  # fmt: skip
