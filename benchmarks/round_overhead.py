"""Wall time of a federated round beyond training.

    python -m benchmarks.round_overhead --rounds 50 --json

A real coordinator and four real nodes, each a process of its own, over HTTP on loopback: signed
entries, checkpoints, cosignatures, durable writes, blobs, exact sum, all as in production. Training is
a no-op (noise alone, no worker), so what is measured is the federation. The time of a round is the
time between one round's ``round.opened`` and the next one's, by the coordinator's clock in the log.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from consilium.actions.federation.founding import INVITATIONS, SUFFIX
from consilium.cli import main as consilium
from consilium.demo.data import breast_cancer, demo_spec
from consilium.demo.processes import Services, free_port
from ledger.copies.store import LogStore
from ledger.entries.entry import Body
from ledger.entries.operations.rounds import RoundOpened
from ledger.formats.documents import encode_document
from ledger.formats.strict import parse_canonical

TIMEOUT_S = 600.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the federation and print the table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="consilium-bench-") as folder:
        seconds, parameters, entries = _measure(Path(folder), options.nodes, options.rounds)
    ordered = sorted(seconds)
    result = {
        "nodes": options.nodes,
        "rounds": options.rounds,
        "round_seconds_median": round(statistics.median(seconds), 4),
        "round_seconds_p90": round(ordered[int(0.9 * (len(ordered) - 1))], 4),
        "round_seconds_max": round(ordered[-1], 4),
        "parameters": parameters,
        "entries_per_round": entries,
        "training": "no-op",
        "cores": os.cpu_count(),
    }
    if not options.json:
        for name, value in result.items():
            print(f"{name:24} {value}")
    print(json.dumps(result))
    return 0


def _measure(folder: Path, nodes: int, rounds: int) -> tuple[list[float], int, float]:
    (folder / "data").mkdir()
    (folder / "logs").mkdir()
    passphrase = folder / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_text("benchmark only\n")
    os.environ |= {
        "CONSILIUM_PASSPHRASE_FILE": str(passphrase),
        "CONSILIUM_KEY_STRENGTH": "interactive",
        "CONSILIUM_TEST_FEDERATION": "1",
        "CONSILIUM_NODE_TRAINING": "noop",
    }
    data = breast_cancer(folder / "data", nodes)
    spec = demo_spec(data, epsilon=8.0, rounds=rounds)
    federation = spec.federation.model_copy(update={"quorum": nodes})
    spec = spec.model_copy(update={"federation": federation})
    port, home = free_port(), folder / "coordinator"
    hospitals = [site.hospital for site in data.sites]
    _do("federation", "create", "bench", "--organisation=operator",
        f"--url=http://127.0.0.1:{port}", *(f"--hospital={name}" for name in hospitals),
        "--researcher=institute=ada", f"--home={home}")  # fmt: skip
    with Services(folder / "logs") as services:
        services.start("coordinator", ["coordinator", "run", f"--port={port}", f"--home={home}"])
        services.running[-1].ready()
        for site in data.sites:
            own = folder / site.hospital
            invitation = home / INVITATIONS / f"{site.hospital}{SUFFIX}"
            _do("member", "join", str(invitation), f"--home={own}")
            schema = folder / f"{site.schema.dataset}.json"
            schema.write_bytes(encode_document(site.schema))
            _do("dataset", "register", f"--data={site.data}", f"--schema={schema}",
                "--epsilon=8", f"--home={own}")  # fmt: skip
            services.start(site.hospital, ["node", "run", f"--home={own}"])
        researcher = folder / "researcher"
        _do(
            "member", "join", str(home / INVITATIONS / f"institute{SUFFIX}"), f"--home={researcher}"
        )
        file = folder / "experiment.json"
        file.write_bytes(encode_document(spec))
        _do("experiment", "propose", str(file), f"--home={researcher}")
        for service in services.running[1:]:
            service.ready()
        for name in hospitals:
            _do("experiment", "approve", spec.name, "--yes", f"--home={folder / name}")
        return _watch(home, rounds, services)


def _watch(home: Path, rounds: int, services: Services) -> tuple[list[float], int, float]:
    """Follow the coordinator's own store until all rounds were opened."""
    store = LogStore.open(f"sqlite:///{home / 'ledger.db'}")
    opened: list[tuple[int, int]] = []
    parameters = index = 0
    deadline = time.monotonic() + TIMEOUT_S
    while len(opened) < rounds and time.monotonic() < deadline:
        services.check()
        for row in store.rows(index):
            body = parse_canonical(row.body, Body)
            if body.op.type == "experiment.proposed":
                parameters = body.op.plan.parameters
            if isinstance(body.op, RoundOpened) and body.op.kind == "train":
                opened.append((body.at_ms, index))
            index += 1
        time.sleep(0.5)
    store.close()
    if len(opened) < rounds:
        raise SystemExit(f"only {len(opened)} of {rounds} rounds were opened in {TIMEOUT_S:.0f} s")
    # The first round contains reservations and their finality: it happens once an experiment.
    kept = opened[1:]
    seconds = [(b[0] - a[0]) / 1000 for a, b in itertools.pairwise(kept)]
    return seconds, parameters, (kept[-1][1] - kept[0][1]) / (len(kept) - 1)


def _do(*arguments: str) -> None:
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = consilium(list(arguments))
    if code:
        sys.stderr.write(errors.getvalue())
        raise SystemExit(f"consilium {' '.join(arguments)} failed with {code}")


if __name__ == "__main__":
    raise SystemExit(main())
