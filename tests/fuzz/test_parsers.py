"""Every parser of bytes from outside refuses by type, or gives the same bytes back; some tries of each.

``python -m tests.fuzz.run`` (``make fuzz``) tries for longer, and with coverage where atheris is there.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutate import mutate
from tests.fuzz.parser import Broken, Parser, attempt
from tests.fuzz.parsers import ELSEWHERE, PARSERS, readers

TRIES = 60


def test_every_function_that_reads_is_tried_or_says_why_not() -> None:
    tried = {name for parser in PARSERS.values() for name in parser.covers}
    found = set(readers())
    missing = sorted(found - tried - ELSEWHERE.keys())
    assert not missing, f"add to tests/fuzz a parser, or to ELSEWHERE a reason: {missing}"
    assert not sorted((tried | ELSEWHERE.keys()) - found - {"ledger.exchange.http_auth.verify"})
    assert len(PARSERS) > 50


def test_every_parser_has_an_encoding_or_says_why_not() -> None:
    for parser in PARSERS.values():
        assert (parser.encode is None) == bool(parser.without), parser.name


@pytest.mark.parametrize("name", PARSERS)
def test_a_valid_sample_is_accepted(name: str) -> None:
    samples = PARSERS[name].samples()
    assert samples
    accepted = [attempt(PARSERS[name], sample) for sample in samples]
    assert any(accepted) or name in NEVER_ACCEPTED, name


NEVER_ACCEPTED = frozenset({"fork", "equivocation"})
"""Judgements whose samples are of an honest log."""


@pytest.mark.parametrize("name", PARSERS)
def test_whatever_the_bytes_it_refuses_by_type_or_gives_them_back(name: str) -> None:
    parser = PARSERS[name]
    samples = parser.samples()
    tries = max(4, TRIES // parser.weight)

    @settings(
        max_examples=tries,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(samples), st.integers(0, 2**64), st.booleans())
    def try_one(sample: bytes, seed: int, repaired: bool) -> None:
        data = mutate(sample, random.Random(seed), samples)
        attempt(parser, parser.repair(data) if parser.repair and repaired else data)

    try_one()


def test_a_parser_that_breaks_its_promise_is_found() -> None:
    honest = PARSERS["checkpoint"]
    sloppy = Parser(
        "sloppy", (), honest.samples, lambda data: data.strip(), (ValueError,), lambda data: data
    )
    with pytest.raises(Broken, match="but its encoding is"):
        attempt(sloppy, b" 17\n")
    rude = Parser("rude", (), honest.samples, lambda data: data[7], (ValueError,), without="none")
    with pytest.raises(IndexError):
        attempt(rude, b"")
