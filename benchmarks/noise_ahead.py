"""From how many numbers on a second process is worth it that draws noise while a sum is made.

``python -m benchmarks.noise_ahead`` asks for vectors of 2^14 to 2^22 numbers, each after work of the length that a
sum of so many coordinates takes (``--nanoseconds`` for each), and prints what the caller then waits for noise, drawn
in line and by the process (``privacy.noise_ahead``): medians in milliseconds; and how long the process took to start.
"""

from __future__ import annotations

import argparse
import statistics
import time

import privacy.noise
from privacy import noise_ahead
from privacy.noise import SecureRandom

DEVIATION = 2**20
AT_ONCE = 2**15


def waited(rng: SecureRandom, size: int, work_s: float) -> float:
    """Milliseconds for which one vector keeps its caller waiting."""
    began = time.perf_counter()
    rng.expect(DEVIATION, size)
    asked = time.perf_counter()
    while time.perf_counter() - asked < work_s:
        pass
    wanted = time.perf_counter()
    for low in range(0, size, AT_ONCE):
        rng.gaussian_integers(DEVIATION, min(AT_ONCE, size - low))
    return (time.perf_counter() - wanted + asked - began) * 1000


def main() -> None:
    """Run the command."""
    options = argparse.ArgumentParser(prog="benchmarks.noise_ahead", description=__doc__)
    options.add_argument("--nanoseconds", type=float, default=13.0, help="of work a number")
    options.add_argument("--repeats", type=int, default=15)
    chosen = options.parse_args()
    privacy.noise.LEAST = 1  # type: ignore[misc]
    with SecureRandom() as rng:
        began = time.perf_counter()
        waited(rng, 2**22, 0.0)
        while not noise_ahead._drawer._is_ready():
            time.sleep(0.001)
        print(f"ready after {time.perf_counter() - began:.2f} s")
        print("| numbers | in line, ms | by the process, ms |\n|---|---:|---:|")
        cores = noise_ahead._cores
        for power in range(14, 23):
            size = 2**power
            times: dict[int, list[float]] = {1: [], 2: []}
            for _ in range(chosen.repeats):
                for count, found in times.items():
                    noise_ahead._cores = cores if count == 2 else lambda: 1  # type: ignore[assignment]
                    found.append(waited(rng, size, size * chosen.nanoseconds / 1e9))
            line, ahead = (statistics.median(times[count]) for count in (1, 2))
            print(f"| 2^{power} | {line:.2f} | {ahead:.2f} |")


if __name__ == "__main__":
    main()
