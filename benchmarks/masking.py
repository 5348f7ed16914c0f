"""What secure aggregation costs a hospital and the coordinator.

    python -m benchmarks.masking [--members 32] [--size 1000000] [--dropouts 8] [--repeats 5] [--json]

One masked round in one process, phase by phase, with all its members; the dropouts hand in shares and
then no vector, which is the dearest case for the coordinator. ``client_ms`` is all that one member
computes in a round, `threads` as in production; ``server_ms`` all that the coordinator does once the
vectors are there: adding them up mod 2^64, putting the secrets together, taking the masks off. Beside
each, in the same run and interleaved with it: AES-256-CTR alone over as many bytes as its masks have,
on as many threads. The sum is compared with that of the bare vectors before anything is printed.

Medians over the repeats. Nothing here is written down or sent; what a round costs in a federation is
measured by ``benchmarks.round_overhead``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from ledger.experiment.average import ExactSum
from privacy.keystream import keystream
from privacy.masking import member
from privacy.masking.recover import recover, take_off
from privacy.masking.roster import Roster

_PIECE = bytes(1 << 16)
WORD = 8

T = TypeVar("T")


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the rounds; print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--members", type=int, default=32)
    parser.add_argument("--size", type=int, default=1_000_000, help="values in a vector")
    parser.add_argument("--dropouts", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    options = parser.parse_args(arguments)
    runs = [_round(options.members, options.size, options.dropouts) for _ in range(options.repeats)]
    medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    result = {
        "members": options.members,
        "size": options.size,
        "dropouts": options.dropouts,
        "repeats": options.repeats,
        "threads": min(4, os.cpu_count() or 1),
        **{name: round(value, 2) for name, value in medians.items()},
    }
    if not options.json:
        for name, value in result.items():
            print(f"{name:24} {value}")
    print(json.dumps(result))
    return 0


def _round(members: int, size: int, dropouts: int) -> dict[str, float]:
    names = tuple(f"hospital-{i:02d}" for i in range(members))
    survivors = names[: members - dropouts]
    roster = Roster(os.urandom(32), names)
    generator = np.random.default_rng(7)
    vectors = {n: generator.integers(-(2**40), 2**40, size, dtype=np.int64) for n in survivors}

    secrets, advertise_ms = {}, 0.0
    for name in names:
        secrets[name], advertise_ms = _timed(lambda n=name: member.advertise(roster, n, os.urandom))
    advertised = {name: kept.public for name, kept in secrets.items()}
    shares, share_ms = {}, []
    for name in names:
        shares[name], ms = _timed(
            lambda n=name: member.share(secrets[n], roster, advertised, os.urandom)
        )
        share_ms.append(ms)
    total, masked, mask_ms, raw_client_ms = ExactSum(size), [], [], []
    for name in survivors:
        (secrets[name], vector), ms = _timed(
            lambda n=name: member.mask(secrets[n], roster, advertised, names, vectors[n])
        )
        masked.append(vector)
        mask_ms.append(ms)
        if len(raw_client_ms) < 5:
            raw_client_ms.append(_raw_ms(members, size))
    agreements, revealed, unmask_ms = {}, {}, []
    for name in survivors:
        secrets[name], agreements[name] = member.agree(secrets[name], roster, names, survivors)
    for name in survivors:
        envelopes = {sender: s.envelopes[name] for sender, s in shares.items()}
        (secrets[name], said), ms = _timed(
            lambda n=name, e=envelopes: member.unmask(
                secrets[n], roster, advertised, names, survivors, agreements, e
            )
        )
        revealed[name] = {**said.seeds, **said.keys}
        unmask_ms.append(ms)

    def add_up() -> None:
        for vector in masked:
            total.add(vector)

    _, add_ms = _timed(add_up)
    commitments = {name: s.commitment for name, s in shares.items()}
    opened, recover_ms = _timed(
        lambda: recover(roster, advertised, commitments, survivors, revealed)
    )
    bare, take_off_ms = _timed(lambda: take_off(total.total(), roster, advertised, opened))
    expected = ExactSum(size)
    for vector in vectors.values():
        expected.add(vector)
    if not np.array_equal(bare, expected.total()):
        raise SystemExit("the unmasked sum is not the sum of the vectors")
    streams = len(survivors) * (1 + dropouts)
    client = [statistics.median(part) for part in (share_ms, mask_ms, unmask_ms)]
    return {
        "client_ms": advertise_ms + sum(client),
        "client_share_ms": client[0],
        "client_mask_ms": client[1],
        "client_unmask_ms": client[2],
        "client_raw_keystream_ms": statistics.median(raw_client_ms),
        "client_mib_up": (size * WORD + members * member.ENVELOPE_BYTES) / 2**20,
        "server_ms": add_ms + recover_ms + take_off_ms,
        "server_add_ms": add_ms,
        "server_recover_ms": recover_ms,
        "server_take_off_ms": take_off_ms,
        "server_raw_keystream_ms": _raw_ms(streams, size),
        "key_streams_client": members,
        "key_streams_server": streams,
    }


def _raw_ms(streams: int, size: int) -> float:
    """AES-256-CTR over as many bytes as so many masks have, and nothing else."""
    threads = min(4, os.cpu_count() or 1)
    keys = [os.urandom(32) for _ in range(streams)]

    def work(part: int) -> None:
        buffer = bytearray(len(_PIECE) + 15)
        for key in keys:
            stream = keystream(key, part.to_bytes(16, "big"))
            left = -(-size * WORD // threads)
            while left > 0:
                stream.update_into(memoryview(_PIECE)[: min(left, len(_PIECE))], buffer)
                left -= len(_PIECE)

    with ThreadPoolExecutor(threads) as pool:
        _, ms = _timed(lambda: list(pool.map(work, range(threads))))
    return ms


def _timed(run: Callable[[], T]) -> tuple[T, float]:
    began = time.perf_counter()
    result = run()
    return result, 1000 * (time.perf_counter() - began)


if __name__ == "__main__":
    raise SystemExit(main())
