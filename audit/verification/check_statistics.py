"""Statistics of datasets: part of step 9 of a verification.

The fold admits a permission on integers. Here its sensitivity and its charges are held against its question
and its mechanisms: what one patient can change in the numbers that are asked, and what that costs.
"""

from __future__ import annotations

from collections.abc import Iterator

from audit.verification.documents import UNREADABLE, Documents
from audit.verification.findings import Check
from audit.verification.replay import Replay
from ledger.errors import PlanRefused
from ledger.experiment.pure_statistics import shortfall
from ledger.experiment.statistics import Question, shape_of
from ledger.formats.documents import parse_document


def check_statistics(replay: Replay, documents: Documents) -> Iterator[Check]:
    """Step 9 as well: statistics that were paid for as what one patient can change in their question."""
    proved = 0
    for record in replay.history.statistics.values():
        place, terms = f"entry {record.said.index}", record.terms
        try:
            question = parse_document(documents.raw(terms.question), Question)
            version = replay.history.registrations[terms.registration]
            shape = shape_of(question, documents.schema(version))
        except UNREADABLE as error:
            yield Check(9, "not_checkable", f"{place}: {error}")
            continue
        except PlanRefused as error:
            yield Check(9, "refuted", str(error), place)
            continue
        cells = {c.cell: replay.log.state.cells[c.cell].terms for c in terms.charges}
        fault = shortfall(shape, terms, cells)
        if question.dataset != terms.dataset:
            fault = "its question is not what was paid for"
        if fault is not None:
            yield Check(9, "refuted", fault, place)
        else:
            proved += 1
    if proved:
        yield Check(9, "proved", f"statistics paid for as what they ask: {proved}")
