"""A hospital whose patients come into a cell by the year of their first registration."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

from node.data.blocks import Calendar, member
from node.data.registration import Prepared, prepare
from node.register.patients import PATIENTS, Place, places_of
from node.register.private import PrivateRegister
from tests.node.data.registered import KEY, Saying, schema

YEARS = (date(2026, 3, 1), date(2026, 11, 2), date(2027, 1, 1), date(2028, 6, 30))


class Hospital:
    """A hospital whose cells are by calendar year, in a federation in memory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / PATIENTS
        self.private = PrivateRegister.open(directory / "private.db")
        self.saying = Saying()
        self.snapshots: list[tuple[str, int]] = []

    def table(self, patients: list[str], rows_each: int = 1) -> Path:
        lines = [
            f"{who},{20 + (row + each) % 70},{row % 2}"
            for row, who in enumerate(patients)
            for each in range(rows_each)
        ]
        path = self.directory / f"table{len(list(self.directory.iterdir()))}.csv"
        path.write_text("\n".join(["who,age,sick", *lines]) + "\n")
        return path

    def prepare(
        self, patients: list[str], today: date, *, rows_each: int = 1, **changed: Any
    ) -> Prepared:
        declared = changed.pop("declared", max(1, len(set(patients))))
        first = not self.private.view.cells
        calendar = {"period": "year" if first else None, **changed.pop("calendar", {})}
        return prepare(
            self.table(patients, rows_each),
            schema(changed.pop("name", "basel-heart"), declared, ids=True),
            organisation="basel",
            hospital_key=KEY,
            cells=self.private.view.cells,
            epsilon=changed.pop("epsilon", 5.0 if first else None),
            calendar=Calendar(self.file, today, lambda: self.snapshots, **calendar),
        )

    def register(self, patients: list[str], today: date, **changed: Any) -> Prepared:
        made = self.prepare(patients, today, **changed)
        self.saying.register(made, self.private)
        at_ms = int((today - date(1970, 1, 1)).total_seconds() * 1000)
        self.snapshots.append((made.record.snapshot, at_ms))
        return made

    def places(self, patients: list[str]) -> dict[str, Place]:
        found = places_of(self.file, [member(KEY, who) for who in patients])
        return {who: found[member(KEY, who)] for who in patients if member(KEY, who) in found}


def people(start: int, stop: int) -> list[str]:
    return [f"p{number}" for number in range(start, stop)]
