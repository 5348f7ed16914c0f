"""What an entry says, in a sentence, and its facts: words before jargon.

`tell` never fails on an applied entry; for void ones and for what history does not know (yet) it
falls back to what the entry itself carries.
"""

from __future__ import annotations

from audit.reports.sentences import datasets, experiments, log, members, rounds
from audit.reports.sentences.told import Teller, Told, speaker
from audit.verification.history import History
from ledger.entries.entry import Entry

_TELLERS: dict[str, Teller] = {
    **members.TELLERS,
    **log.TELLERS,
    **datasets.TELLERS,
    **experiments.TELLERS,
    **rounds.TELLERS,
}


def tell(entry: Entry, history: History) -> Told:
    """Say what an entry says."""
    op = entry.body.op
    who = speaker(entry.body.author, history)
    teller = _TELLERS.get(op.type)
    if teller is None:
        return Told(f"{who} said {op.type}.")
    return teller(who, op, history)
