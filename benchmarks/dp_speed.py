"""How fast a private step is: ours, stock Opacus, Opacus' ghost mode and a step without privacy.

``python -m benchmarks.dp_speed --json`` trains each model on random rows of a fixed shape and prints,
per model and batch, milliseconds a step: the lower quartile over rounds in which all contestants take
turns, in processor time on one thread (so that who else uses the machine counts less), else by the clock. Where
a second core draws noise, on one thread too by the clock, less what the step's thread stood in line for a processor:

* ``ours_ms``: the fast engine's clipped sum and the weights' update;
* ``ours_secure_ms``: the same with the sum on the grid and exact noise from a secure generator, as a
  node runs it (the default; the plan's clip norm lowered for rounding). For a model of 1,048,576 parameters and more the
  noise is drawn meanwhile by a second process on A SECOND CORE, which no other contestant on one thread uses;
* ``ours_one_core_ms``: for such a model, the same in a process that may use one core alone, as the others do;
* ``opacus_ms``: ``GradSampleModule`` and ``DPOptimizer`` with Opacus' default noise;
* ``opacus_ghost_ms``: Opacus' ghost clipping, null where it cannot train the model;
* ``plain_ms``: forward, backward and SGD of torch's own layers.

Each model runs in a process of its own, ``--repeats`` times anew; a time is the repeats' median, and the
table gives the least and the most of times and ratios. Memory: stock Opacus asks for its rows' gradients
at every step, and how long that takes depends on whether the allocator still has them or the system must
clear new pages. ``page_faults`` counts those pages a step, so that a reader sees what moved a time;
``--allocator keeping`` lets glibc keep what was freed, for all contestants alike.

The process has a training process' environment (``node.training.process.environment``), and none of this shell's
choices for OpenBLAS, which multiplies for us; torch, and so the other contestants, multiply by MKL.

All train on one thread, as a training process does; ``--threads 2`` lets torch multiply on two, of all contestants.

The tabular models sample their batch by a mask from four times as many rows; the others get theirs.
``--memory`` runs ResNet-18 with group norms at batch 64 in processes of their own and reports the most
memory that a step adds (``ru_maxrss`` after less before). Not measured: GPUs, loading of data.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.dp_contestants import Step, contestants, opacus, ours_module
from node.training.process.environment import process_environment

BATCHES = {
    "logistic-regression": (64, 512, 4096),
    "mlp": (64, 512, 4096),
    "cnn": (64, 512),
    "gru": (64, 512),
    "resnet18-gn": (64,),
}
LARGE = ("resnet18-gn",)
"""Models of which a second core draws the noise: measured on one core and on two."""
COLUMNS = (
    "ours_ms", "ours_secure_ms", "ours_one_core_ms", "opacus_ms", "opacus_ghost_ms", "plain_ms",
)  # fmt: skip
NO_FAULTS = ("ours_ms", "ours_one_core_ms")
"""Columns whose page faults the table leaves out."""
KEEPING = {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "8000000000"}
"""glibc's settings under which freed memory is never given back, and so never cleared anew."""


def measure(model: str, batch: int, seconds: float) -> dict[str, Any]:
    """Time a case for about so long, in rounds in which the contestants take turns."""
    steps = contestants(model, batch)
    if model in LARGE:
        steps["ours_one_core_ms"] = on_one_core(steps["ours_secure_ms"])
    repeats = {}
    for name, step in steps.items():
        step()
        began = time.perf_counter()
        step()
        repeats[name] = max(1, min(1000, int(0.02 / (time.perf_counter() - began))))
    times: dict[str, list[float]] = {name: [] for name in steps}
    faults, counted = dict.fromkeys(steps, 0), dict.fromkeys(steps, 0)
    clock = time.perf_counter
    if torch.get_num_threads() == 1:
        clock = own_clock if model in LARGE else time.process_time
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(times["ours_ms"]) < 3:
        for name, step in steps.items():
            pages, start = page_faults(), clock()
            for _ in range(repeats[name]):
                step()
            times[name].append((clock() - start) / repeats[name] * 1000)
            faults[name] += page_faults() - pages
            counted[name] += repeats[name]
    case: dict[str, Any] = {"model": model, "batch": batch, "threads": torch.get_num_threads()}
    for name in COLUMNS:
        case[name] = round(float(np.quantile(times[name], 0.25)), 4) if name in times else None
    case["page_faults"] = {column(name): round(faults[name] / counted[name], 1) for name in steps}
    return case


def on_one_core(step: Step) -> Step:
    """A step in which this process may use one core alone."""

    def held() -> None:
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {max(cores)})
        try:
            step()
        finally:
            os.sched_setaffinity(0, cores)

    return held


def own_clock() -> float:
    """Seconds by the clock, less those in which this thread stood in line for a processor."""
    line = Path("/proc/thread-self/schedstat").read_text(encoding="ascii")
    return time.perf_counter() - int(line.split()[1]) / 1e9


def page_faults() -> int:
    """Pages that the system gave this process so far, cleared, without reading a disk."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def column(name: str) -> str:
    """A contestant's name of its column's."""
    return name.removesuffix("_ms")


def memory(which: str) -> int:
    """MiB that two steps of ResNet-18 at batch 64 add to a process's most memory."""
    make = {
        "ours": lambda: ours_module("resnet18-gn", 64)[1],
        "opacus": lambda: opacus("resnet18-gn", 64),
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = make[which]()
    for _ in range(2):
        step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024


def alone(threads: int, allocator: str, *arguments: str) -> Iterator[Any]:
    """Run this module in a process with so many threads; give its lines."""
    variables = process_environment()
    variables |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    if allocator == "keeping":
        variables |= KEEPING
    command = [sys.executable, "-m", "benchmarks.dp_speed", *arguments]
    done = subprocess.run(command, env=variables, stdout=subprocess.PIPE, text=True, check=True)
    for line in done.stdout.splitlines():
        yield json.loads(line)


def together(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """One case of its repeats: medians, and the least and most of times and of ratios."""
    case: dict[str, Any] = {key: runs[0][key] for key in ("model", "batch", "threads")}
    case["least_and_most_ms"], case["page_faults"] = {}, {}
    for name in COLUMNS:
        times = [run[name] for run in runs]
        case[name] = None if None in times else round(float(np.median(times)), 4)
        if case[name] is not None:
            of = column(name)
            case["least_and_most_ms"][of] = [min(times), max(times)]
            case["page_faults"][of] = float(np.median([run["page_faults"][of] for run in runs]))
    for key, over, under in (
        ("opacus_over_ours", "opacus_ms", "ours_secure_ms"),
        ("ours_over_plain", "ours_secure_ms", "plain_ms"),
        ("ours_bare_over_plain", "ours_ms", "plain_ms"),
        ("ours_one_core_over_plain", "ours_one_core_ms", "plain_ms"),
        ("noise_over_ours", "ours_secure_ms", "ours_ms"),
    ):
        if runs[0][over] is None:
            continue
        ratios = [run[over] / run[under] - (key == "noise_over_ours") for run in runs]
        case[key] = [round(min(ratios), 2), round(max(ratios), 2)]
    return case


def table(cases: list[dict[str, Any]]) -> None:
    """Print cases as rows of the README's table, times and ratios as least .. most of the repeats."""
    print(
        "| model | batch | threads | ours, no noise | ours | ours, one core | Opacus | Opacus, ghost | "
        "no privacy | ", end="",
    )  # fmt: skip
    print("Opacus / ours | ours / no privacy | noise / ours, no noise | ", end="")
    print("page faults: ours, Opacus, ghost, no privacy |")
    print("|---|" + "---:|" * 12)
    for case in cases:
        cells = [case["model"], str(case["batch"]), str(case["threads"])]
        for name in COLUMNS:
            cells.append(span(case["least_and_most_ms"].get(column(name)), "#.3g"))
        for ratio in ("opacus_over_ours", "ours_over_plain", "noise_over_ours"):
            cells.append(span(case[ratio], ".2f"))
        faults = [
            case["page_faults"].get(column(name)) for name in COLUMNS if name not in NO_FAULTS
        ]
        cells.append(", ".join("-" if count is None else f"{count:.0f}" for count in faults))
        print("| " + " | ".join(cells) + " |")


def span(least_and_most: list[float] | None, form: str) -> str:
    """Two numbers, or one where they read the same; a dash where there are none."""
    if least_and_most is None:
        return "-"
    low, high = (format(value, form) for value in least_and_most)
    return low if low == high else f"{low} .. {high}"


def main() -> None:
    """Run the command."""
    warnings.simplefilter("ignore")
    options = argparse.ArgumentParser(prog="benchmarks.dp_speed", description=__doc__)
    options.add_argument("--models", nargs="*", default=list(BATCHES), choices=list(BATCHES))
    options.add_argument("--batches", nargs="*", type=int, help="only these")
    options.add_argument("--threads", nargs="*", type=int, help="default 1")
    options.add_argument("--seconds", type=float, default=3.0, help="for each case and repeat")
    options.add_argument("--repeats", type=int, default=1, help="processes for each model")
    options.add_argument(
        "--allocator", choices=["default", "keeping"], default="default",
        help="of all contestants: glibc as it is, or one that keeps freed memory",
    )  # fmt: skip
    options.add_argument("--memory", action="store_true", help="measure ResNet-18's memory too")
    options.add_argument("--json", action="store_true", help="print the line of JSON alone")
    options.add_argument("--inside", choices=["speed", "ours", "opacus"], help=argparse.SUPPRESS)
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads[0] if chosen.threads else 1)
    if chosen.inside == "speed":
        for model in chosen.models:
            for batch in BATCHES[model]:
                if chosen.batches and batch not in chosen.batches:
                    continue
                print(json.dumps(measure(model, batch, chosen.seconds)), flush=True)
        return
    if chosen.inside is not None:
        print(memory(chosen.inside))
        return
    cases = []
    for threads in chosen.threads or (1,):
        common = ["--threads", str(threads), "--seconds", str(chosen.seconds)]
        for model in chosen.models:
            command = ["--inside", "speed", *common, "--models", model]
            command += ["--batches", *map(str, chosen.batches)] if chosen.batches else []
            runs = [list(alone(threads, chosen.allocator, *command)) for _ in range(chosen.repeats)]
            cases += [together(list(repeats)) for repeats in zip(*runs, strict=True)]
    result: dict[str, Any] = {"allocator": chosen.allocator, "cases": cases}
    if chosen.memory:
        result["resnet18_gn_batch_64_step_mib"] = {
            which: next(alone(1, chosen.allocator, "--inside", which))
            for which in ("ours", "opacus")
        }
    if not chosen.json:
        table(cases)
        if chosen.memory:
            print("MiB that a step adds:", result["resnet18_gn_batch_64_step_mib"])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
