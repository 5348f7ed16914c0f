"""One parser, tried in this process until the time is over: ``target NAME ENGINE SECONDS SEED``."""

from __future__ import annotations

import logging
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path

import structlog


def main() -> None:
    """See the module's first line; ``run`` reads what is printed."""
    name, engine, seconds, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    if engine == "atheris":
        _with_atheris(name, seconds, seed)
    else:
        _at_random(name, seconds, seed)


def _at_random(name: str, seconds: int, seed: int) -> None:
    from tests.fuzz.mutate import mutate
    from tests.fuzz.parser import attempt
    from tests.fuzz.parsers import PARSERS

    parser = PARSERS[name]
    samples = list(parser.samples())
    chance = random.Random(seed)
    ends = time.monotonic() + seconds
    tries, kinds = 0, set[str]()
    while time.monotonic() < ends:
        data = mutate(chance.choice(samples), chance, samples)
        if parser.repair is not None and chance.random() < 0.5:
            data = parser.repair(data)
        tries += 1
        try:
            attempt(parser, data)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - each kind of finding is told once
            frame = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} at {frame.filename}:{frame.lineno}"
            if kind not in kinds and len(kinds) < 8:
                kinds.add(kind)
                print(f"--- {kind}\n{str(error)[:600]}\ninput: {data[:600]!r}", flush=True)
                ours = [
                    f
                    for f in traceback.extract_tb(error.__traceback__)
                    if "site-packages" not in f.filename
                ]
                print("".join(traceback.format_list(ours[-4:])), flush=True)
    print(f"Done {tries} tries", flush=True)
    sys.exit(1 if kinds else 0)


def _with_atheris(name: str, seconds: int, seed: int) -> None:
    import atheris

    with atheris.instrument_imports(
        include=["privacy", "ledger", "node", "coordinator", "audit", "consilium"]
    ):
        from tests.fuzz.mutate import MAX_LENGTH, mutate
        from tests.fuzz.parser import attempt
        from tests.fuzz.parsers import PARSERS

    parser = PARSERS[name]
    samples = list(parser.samples())
    corpus = Path(tempfile.mkdtemp(prefix="corpus-"))
    for number, sample in enumerate(samples):
        (corpus / str(number)).write_bytes(sample)

    def try_one(data: bytes) -> None:
        attempt(parser, bytes(data))

    def change(data: bytes, most: int, seed: int) -> bytes:
        chance = random.Random(seed)
        data = bytes(data)
        if chance.random() < 0.3:
            data = bytes(atheris.Mutate(data, min(most, len(data) + 64)))
        else:
            data = mutate(data, chance, samples, most)
        if parser.repair is not None and chance.random() < 0.5:
            data = parser.repair(data)
        return data[:most]

    options = [
        sys.argv[0],
        f"-max_total_time={seconds}",
        f"-max_len={MAX_LENGTH}",
        f"-seed={seed}",
        "-timeout=60",
        "-rss_limit_mb=4096",
        "-print_final_stats=0",
        str(corpus),
    ]
    atheris.Setup(options, try_one, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
