"""Worker processes that check signatures: whoever asked may go before they have begun."""

from __future__ import annotations

from multiprocessing import get_context

from ledger.rules.signatures import _work


def test_a_worker_whose_caller_has_gone_ends_without_a_word() -> None:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    ours.close()
    process = context.Process(target=_work, args=(theirs,))
    process.start()
    process.join()
    assert process.exitcode == 0
