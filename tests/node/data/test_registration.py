from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs, to_builtins
from pydantic import ValidationError

from ledger.copies.blobs import blob_ref
from ledger.entries.operations.datasets import CellLimit, CellRegistered, DatasetRegistered
from ledger.entries.operations.federation import Invitation, Seat
from ledger.entries.operations.values import PublicKey
from ledger.errors import MalformedInput
from ledger.experiment.purpose_parts import Parts, parts_said
from ledger.experiment.schema import Schema
from ledger.formats.documents import encode_document
from ledger.formats.keys import SealingKey
from node.data.hospital_key import KEY_FILE, ensure_hospital_key, has_cells, load_hospital_key
from node.data.promised_cells import cell_name
from node.errors import DatasetError, RegistrationRefused, ServiceError
from node.register.accounts import PrivateView
from node.register.private import PrivateRegister
from tests.node.data.registered import Saying, prepared, schema, table


def test_a_hospital_without_patient_ids_is_one_cell(
    tmp_path: Path, private: PrivateRegister
) -> None:
    saying = Saying()
    saying.register(prepared(private, table(tmp_path), schema()), private)
    assert saying.said == ["cell.registered", "dataset.registered"]
    cell = saying.federation.state.cells["basel-all"].terms
    assert (cell.half, cell.declared_patients, cell.delta_e15) == ("both", 100, 10**10)
    dataset = saying.federation.state.datasets["basel-heart"]
    assert private.view.datasets["basel-heart"].registration == dataset.registration
    assert private.datasets.unfinished() == ()


def test_patient_ids_make_a_cell_of_each_half(tmp_path: Path, private: PrivateRegister) -> None:
    given = prepared(private, table(tmp_path), schema(ids=True))
    assert [(t.cell, t.half, t.declared_patients, p) for t, p in given.cells] == [
        ("basel-train", "train", 70, 30),
        ("basel-test", "test", 30, 30),
    ]
    assert given.dataset.unit == "patient"


def test_an_id_that_a_spreadsheet_spoilt_is_not_registered(
    tmp_path: Path, private: PrivateRegister
) -> None:
    path = table(tmp_path)
    path.write_text(path.read_text().replace("p7,", "7.0,"))
    with pytest.raises(DatasetError, match="second budget"):
        prepared(private, path, schema(ids=True))


def test_what_leaves_is_declared_and_never_counted(
    tmp_path: Path, private: PrivateRegister
) -> None:
    fewer = prepared(private, table(tmp_path, 80), schema(declared=90))
    more = prepared(private, table(tmp_path, 120), schema(declared=90))
    one, two = (to_builtins(replace_snapshot(given.dataset)) for given in (fewer, more))
    assert one == two
    assert fewer.record.rows != more.record.rows


def replace_snapshot(dataset: DatasetRegistered) -> DatasetRegistered:
    return structs.replace(dataset, snapshot="0" * 64)


def test_the_same_bytes_are_not_said_again_and_may_lie_elsewhere(
    tmp_path: Path, private: PrivateRegister
) -> None:
    saying, path = Saying(), table(tmp_path)
    saying.register(prepared(private, path, schema()), private)
    first = saying.federation.state.datasets["basel-heart"].registration
    elsewhere = path.rename(tmp_path / "moved.csv")
    saying.register(prepared(private, elsewhere, schema(), None), private)
    assert saying.said == ["cell.registered", "dataset.registered"]  # a plan that waits stays good
    assert saying.federation.state.datasets["basel-heart"].registration == first
    assert private.view.datasets["basel-heart"].path == str(elsewhere)
    assert private.datasets.registered(first) == private.view.datasets["basel-heart"]
    assert private.datasets.unfinished() == ()


def test_another_declaration_or_a_forgotten_secret_makes_a_new_version(
    tmp_path: Path, private: PrivateRegister
) -> None:
    saying, path = Saying(), table(tmp_path)
    saying.register(prepared(private, path, schema()), private)
    saying.register(prepared(private, path, schema(declared=90), None), private)
    second = saying.federation.state.datasets["basel-heart"].registration
    private.datasets.forget_salt(second)
    saying.register(prepared(private, path, schema(declared=90), None), private)
    assert saying.said.count("dataset.registered") == 3
    assert saying.federation.state.datasets["basel-heart"].registration != second


def test_each_registration_commits_under_a_fresh_salt(
    tmp_path: Path, private: PrivateRegister
) -> None:
    path = table(tmp_path)
    one, two = (prepared(private, path, schema()) for _ in range(2))
    assert one.dataset.snapshot != two.dataset.snapshot
    assert one.record.salt != two.record.salt


def test_a_second_dataset_shares_the_hospitals_cell(
    tmp_path: Path, private: PrivateRegister
) -> None:
    saying = Saying()
    saying.register(prepared(private, table(tmp_path), schema()), private)
    second = prepared(private, table(tmp_path), schema("basel-lab"), epsilon=None)
    assert second.cells == ()
    saying.register(second, private)
    uses = saying.federation.state.datasets["basel-lab"].terms.cells
    assert [use.cell for use in uses] == ["basel-all"]


def test_the_promise_is_made_once(tmp_path: Path, private: PrivateRegister) -> None:
    Saying().register(prepared(private, table(tmp_path), schema()), private)
    with pytest.raises(RegistrationRefused, match="promised epsilon 5 for ever"):
        prepared(private, table(tmp_path), schema("basel-lab"), epsilon=9.0)


def test_the_first_dataset_needs_a_promise(tmp_path: Path, private: PrivateRegister) -> None:
    with pytest.raises(RegistrationRefused, match="say the epsilon"):
        prepared(private, table(tmp_path), schema(), epsilon=None)


@pytest.mark.parametrize(
    ("epsilon", "delta", "message"),
    [(-1.0, None, "cannot be promised"), (1.0, 1e-3, "outside 1e-15"), (1.0, 0.0, "outside 1e-15")],
)
def test_an_impossible_promise_is_refused(
    tmp_path: Path,
    private: PrivateRegister,
    epsilon: float,
    delta: float | None,
    message: str,
) -> None:
    with pytest.raises(RegistrationRefused, match=message):
        prepared(private, table(tmp_path), schema(), epsilon, delta)


def test_a_dataset_without_ids_is_refused_where_patients_are_told_apart(
    tmp_path: Path, private: PrivateRegister
) -> None:
    Saying().register(prepared(private, table(tmp_path), schema(ids=True)), private)
    with pytest.raises(RegistrationRefused, match="declare a column of type patient_id"):
        prepared(private, table(tmp_path), schema("basel-lab"), None)


def test_another_division_into_halves_is_refused(tmp_path: Path, private: PrivateRegister) -> None:
    Saying().register(prepared(private, table(tmp_path), schema(ids=True)), private)
    other = schema("basel-lab", ids=True).model_copy(update={"test_percent": 20})
    with pytest.raises(RegistrationRefused, match="test_percent is 20"):
        prepared(private, table(tmp_path), other, None)


@pytest.mark.parametrize("declared", [49, 201])
def test_a_declared_size_far_from_the_file_is_refused(
    tmp_path: Path, private: PrivateRegister, declared: int
) -> None:
    with pytest.raises(DatasetError, match=r"has 100 rows.*between 50 and 200"):
        prepared(private, table(tmp_path), schema(declared=declared))


def test_a_missing_file_is_one_clear_error(tmp_path: Path, private: PrivateRegister) -> None:
    with pytest.raises(DatasetError, match="No such file"):
        prepared(private, tmp_path / "gone.csv", schema())


def test_parts_for_purposes_are_said_with_the_cell_before_the_dataset(
    tmp_path: Path, private: PrivateRegister
) -> None:
    saying, path = Saying(), table(tmp_path)
    parts: Parts = {"research": 3_000_000, "development": 0}
    saying.register(prepared(private, path, schema(), purposes=parts), private)
    limited = ["purpose.limited"] * 2
    assert saying.said == ["cell.registered", *limited, "dataset.registered"]
    state = saying.federation.state
    assert parts_said(state, "basel-all") == parts
    saying.register(prepared(private, path, schema(), None, purposes=parts), private)
    assert len(saying.said) == 4  # nothing new
    lower: Parts = {"research": 2_000_000}
    saying.register(prepared(private, path, schema(), None, purposes=lower), private)
    assert parts_said(saying.federation.state, "basel-all") == {**parts, **lower}
    with pytest.raises(RegistrationRefused, match="only ever lowered"):
        saying.register(prepared(private, path, schema(), None, purposes=parts), private)


def test_a_part_above_the_promise_is_refused_before_anything_is_said(
    tmp_path: Path, private: PrivateRegister
) -> None:
    saying = Saying()
    given = prepared(private, table(tmp_path), schema(), purposes={"care": 5_000_001})
    with pytest.raises(RegistrationRefused, match="more than the 5 that the patients of basel-all"):
        saying.register(given, private)
    assert saying.said == []


def test_cell_names_stay_within_a_slug() -> None:
    organisation = "a" * 32
    key = PublicKey(alg="ed25519", public="0" * 64)
    seats = (Seat(handle="ada", role="node"),)
    Invitation(organisation=organisation, key=key, seats=seats)
    with pytest.raises(MalformedInput, match="length <= 32"):
        Invitation(organisation=organisation + "a", key=key, seats=seats)
    name = cell_name(organisation, "train")
    CellRegistered(
        **(
            dict.fromkeys(("block", "cell"), name)
            | {
                "type": "cell.registered",
                "half": "train",
                "declared_patients": 1,
                "epsilon_micro": 1,
                "delta_e15": 1,
                "limit": CellLimit(g_max=1, r_max=1, order_centi=200),
            }
        )
    )
    assert cell_name("basel", "all") == "basel-all"


def test_the_hospital_key_is_made_once_and_sealed(tmp_path: Path) -> None:
    sealing = SealingKey.generate()
    key = ensure_hospital_key(tmp_path, sealing, begun=False)
    assert ensure_hospital_key(tmp_path, sealing, begun=True) == key
    assert load_hospital_key(tmp_path, sealing) == key
    file = tmp_path / KEY_FILE
    assert key not in file.read_bytes()
    assert file.stat().st_mode & 0o077 == 0
    with pytest.raises(ServiceError, match="sealed to keys that this home has no more"):
        load_hospital_key(tmp_path, SealingKey.generate())
    file.unlink()
    with pytest.raises(ServiceError, match="cannot be read"):
        load_hospital_key(tmp_path, sealing)


def test_registrations_that_begin_at_once_have_one_hospital_key(tmp_path: Path) -> None:
    sealing = SealingKey.generate()
    with ThreadPoolExecutor(8) as threads:
        asked = [
            threads.submit(ensure_hospital_key, tmp_path, sealing, begun=False) for _ in range(8)
        ]
        assert {one.result() for one in asked} == {load_hospital_key(tmp_path, sealing)}


def test_a_hospital_key_that_is_gone_is_not_made_anew_once_patients_have_cells(
    tmp_path: Path, private: PrivateRegister
) -> None:
    """Another key would put patients into the other half, whose cell has a promise of its own."""
    saying, sealing = Saying(), SealingKey.generate()
    assert not has_cells("basel", saying.federation.state, private.view)
    saying.register(prepared(private, table(tmp_path), schema(ids=True)), private)
    assert has_cells(
        "basel", saying.federation.state, PrivateView()
    )  # the register is lost as well
    assert has_cells("basel", Saying().federation.state, private.view)
    assert not has_cells("bern", saying.federation.state, PrivateView())
    with pytest.raises(ServiceError, match="nobody may divide them anew: restore it from a backup"):
        ensure_hospital_key(tmp_path, sealing, begun=True)
    assert not (tmp_path / KEY_FILE).exists()


def test_the_schema_travels_as_the_blob_that_is_named(
    tmp_path: Path, private: PrivateRegister
) -> None:
    given = prepared(private, table(tmp_path), schema())
    assert given.dataset.schema_ == blob_ref(given.record.schema_document)
    assert replace(given.record, rows=0) != given.record


@pytest.mark.parametrize(("bound", "shortened"), [(None, 1), (2, 1), (1, 2), (40, 0)])
def test_who_has_more_rows_than_are_read_is_counted_for_the_hospital_alone(
    tmp_path: Path, private: PrivateRegister, bound: int | None, shortened: int
) -> None:
    rows = [f"p{row},40,1" for row in range(60)] + ["p0,41,1"] + ["p1,42,0"] * 33
    path = tmp_path / "many.csv"
    path.write_text("\n".join(["who,age,sick", *rows]) + "\n")
    declared = schema(declared=60, ids=True)
    declared = declared.model_copy(update={"rows_per_patient": bound, "test_percent": 0})
    found = prepared(private, path, declared)
    assert found.shortened == shortened
    without = prepared(private, table(tmp_path, 60), declared)
    assert replace_snapshot(found.dataset) == replace_snapshot(without.dataset)
    assert found.cells == without.cells


def test_a_bound_of_rows_needs_patients_and_leaves_other_schemas_their_hash() -> None:
    with pytest.raises(ValidationError, match="rows_per_patient needs a patient_id column"):
        Schema.model_validate(schema().model_dump(by_alias=True) | {"rows_per_patient": 3})
    assert b"rows_per_patient" not in encode_document(schema(ids=True))
    for wrong in (0, 1025):
        with pytest.raises(ValidationError, match="rows_per_patient"):
            Schema.model_validate(schema(ids=True).model_dump() | {"rows_per_patient": wrong})
