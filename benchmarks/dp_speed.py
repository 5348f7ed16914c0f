"""How fast a private step is: ours, stock Opacus, Opacus' ghost mode and a step without privacy.

``python -m benchmarks.dp_speed --json`` trains each model on random rows of a fixed shape and prints,
per model and batch, milliseconds a step: the lower quartile over rounds in which all contestants take
turns, in processor time on one thread (so that who else uses the machine counts less), else by the clock:

* ``ours_ms``: the fast engine's clipped sum and the weights' update;
* ``ours_secure_ms``: the same with the sum on the grid and exact noise from a secure generator, as a
  node runs it (the default; the plan's clip norm lowered for rounding);
* ``opacus_ms``: ``GradSampleModule`` and ``DPOptimizer`` with Opacus' default noise;
* ``opacus_ghost_ms``: Opacus' ghost clipping, null where it cannot train the model;
* ``plain_ms``: forward, backward and SGD of torch's own layers.

Each model runs in a process of its own, ``--repeats`` times anew; a time is the repeats' median, and the
table gives the least and the most of the ratios. Memory: stock Opacus asks for its rows' gradients at
every step, and how long that takes depends on whether the allocator still has them or the system must
clear new pages. ``--allocator keeping`` lets glibc keep what was freed, for all contestants alike.

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
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from torch import nn
from torch.nn import functional

from benchmarks.dp_models import network, rows_of, tree
from ledger.experiment.fast_clip import Limits
from ledger.experiment.spec import BinaryTask
from node.data.encode import Examples
from node.training.networks.modules import flat
from node.training.sums.bookkeeping import clipped_sum_of
from node.training.sums.dense import DenseSum
from node.training.sums.noisy_sum import noisy_sum
from privacy.events import GRID
from privacy.noise import SecureRandom

CLIP = 1.0
NOISE = 1.0
RATE = 0.01
AT_ONCE = 2**16
"""Parameters that an update changes at once."""
BATCHES = {
    "logistic-regression": (64, 512, 4096),
    "mlp": (64, 512, 4096),
    "cnn": (64, 512),
    "gru": (64, 512),
    "resnet18-gn": (64,),
}
COLUMNS = ("ours_ms", "ours_secure_ms", "opacus_ms", "opacus_ghost_ms", "plain_ms")
KEEPING = {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "8000000000"}
"""glibc's settings under which freed memory is never given back, and so never cleared anew."""
Step = Callable[[], object]


def ours_tabular(model: str, batch: int) -> tuple[Step, Step]:
    """Our step without and with noise and grid."""
    inputs, targets = rows_of(model, 4 * batch)
    examples = Examples(inputs.numpy(), targets.numpy(), np.arange(4 * batch), 4 * batch)
    engine = DenseSum(
        tree(model), BinaryTask(kind="binary", target="y", above=0), examples,
        Limits(4 * batch, 4 * batch),
    )  # fmt: skip
    taken = np.zeros(4 * batch, dtype=bool)
    taken[np.random.default_rng(1).permutation(4 * batch)[:batch]] = True
    weights = flat(network(model, opacus=False))
    rng = SecureRandom()

    def bare() -> None:
        engine.load(weights)
        np.subtract(weights, RATE / batch * engine.float_sum(taken, CLIP), out=weights)

    def secure() -> None:
        engine.load(weights)
        noisy = engine.clipped_sum(taken, int(CLIP * GRID))
        noisy += rng.gaussian_integers(int(NOISE * CLIP * GRID), len(noisy))
        np.subtract(weights, RATE / batch / GRID * noisy, out=weights)

    return bare, secure


def ours_module(model: str, batch: int) -> tuple[Step, Step]:
    """The same for a module."""
    inputs, targets = rows_of(model, batch)
    module = network(model, opacus=False)
    engine = clipped_sum_of(module, row_loss, inputs)
    rng = SecureRandom()

    room = torch.empty(engine.parameters, dtype=torch.float64)

    def update(total: torch.Tensor, unit: float) -> None:
        at = 0
        with torch.no_grad():
            for parameter in module.parameters():
                for piece in parameter.view(-1).split(AT_ONCE):
                    part = total[at : at + len(piece)].to(torch.float32)
                    piece.sub_(part, alpha=RATE / batch / unit)
                    at += len(piece)

    def bare() -> None:
        update(engine.float_sum(inputs, targets, CLIP, into=room), 1.0)

    def secure() -> None:
        noisy = noisy_sum(
            engine, inputs, targets, int(CLIP * GRID), most_patients=2 * batch,
            noise_sd=int(NOISE * CLIP * GRID), rng=rng, room=room,
        )  # fmt: skip
        update(torch.from_numpy(noisy), GRID)

    return bare, secure


def row_loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross entropy of each row."""
    return functional.cross_entropy(outputs, targets, reduction="none")


def criterion(model: str, reduction: str = "mean") -> nn.Module:
    """The loss that torch and Opacus use."""
    if model in ("logistic-regression", "mlp"):
        return nn.BCEWithLogitsLoss(reduction=reduction)
    return nn.CrossEntropyLoss(reduction=reduction)


def plain(model: str, batch: int) -> Step:
    """A step of torch without privacy."""
    inputs, targets = rows_of(model, batch)
    module, loss = network(model, opacus=False), criterion(model)
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE)
    flatten = model in ("logistic-regression", "mlp")

    def step() -> None:
        optimizer.zero_grad()
        outputs = module(inputs)
        loss(outputs.squeeze(1) if flatten else outputs, targets).backward()
        optimizer.step()

    return step


def opacus(model: str, batch: int) -> Step:
    """A step of stock Opacus: every row's gradient by hooks."""
    inputs, targets = rows_of(model, batch)
    module, loss = GradSampleModule(network(model, opacus=True)), criterion(model)
    optimizer = DPOptimizer(
        torch.optim.SGD(module.parameters(), lr=RATE),
        noise_multiplier=NOISE,
        max_grad_norm=CLIP,
        expected_batch_size=batch,
    )
    flatten = model in ("logistic-regression", "mlp")

    def step() -> None:
        optimizer.zero_grad()
        outputs = module(inputs)
        loss(outputs.squeeze(1) if flatten else outputs, targets).backward()
        optimizer.step()

    return step


def ghost(model: str, batch: int) -> Step | None:
    """A step of Opacus' ghost clipping: two backward passes, norms only."""
    inputs, targets = rows_of(model, batch)
    module = GradSampleModuleFastGradientClipping(
        network(model, opacus=True), max_grad_norm=CLIP, use_ghost_clipping=True
    )
    optimizer = DPOptimizerFastGradientClipping(
        torch.optim.SGD(module.parameters(), lr=RATE),
        noise_multiplier=NOISE,
        max_grad_norm=CLIP,
        expected_batch_size=batch,
    )
    loss = DPLossFastGradientClipping(module, optimizer, criterion(model))
    flatten = model in ("logistic-regression", "mlp")

    def step() -> None:
        optimizer.zero_grad()
        outputs = module(inputs)
        loss(outputs.squeeze(1) if flatten else outputs, targets).backward()
        optimizer.step()

    try:
        step()
    except (
        NotImplementedError,
        RuntimeError,
        ValueError,
        AttributeError,
        KeyError,
        IndexError,
    ) as why:
        # Opacus fails in many ways on layers that its ghost mode has no rule for: the column is empty.
        print(f"no ghost clipping for {model}: {type(why).__name__}: {why}", file=sys.stderr)
        return None
    return step


def contestants(model: str, batch: int) -> dict[str, Step]:
    """All steps of a case, by the name of their column."""
    tabular = model in ("logistic-regression", "mlp")
    bare, secure = (ours_tabular if tabular else ours_module)(model, batch)
    steps = {"ours_ms": bare, "ours_secure_ms": secure, "plain_ms": plain(model, batch)}
    steps["opacus_ms"] = opacus(model, batch)
    by_ghost = ghost(model, batch)
    return steps if by_ghost is None else steps | {"opacus_ghost_ms": by_ghost}


def measure(model: str, batch: int, seconds: float) -> dict[str, Any]:
    """Time a case for about so long, in rounds in which the contestants take turns."""
    steps = contestants(model, batch)
    repeats = {}
    for name, step in steps.items():
        step()
        began = time.perf_counter()
        step()
        repeats[name] = max(1, min(1000, int(0.02 / (time.perf_counter() - began))))
    times: dict[str, list[float]] = {name: [] for name in steps}
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(times["ours_ms"]) < 3:
        for name, step in steps.items():
            start = clock()
            for _ in range(repeats[name]):
                step()
            times[name].append((clock() - start) / repeats[name] * 1000)
    case: dict[str, Any] = {"model": model, "batch": batch, "threads": torch.get_num_threads()}
    for name in COLUMNS:
        case[name] = round(float(np.quantile(times[name], 0.25)), 4) if name in times else None
    return case


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
    variables = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    if allocator == "keeping":
        variables |= KEEPING
    command = [sys.executable, "-m", "benchmarks.dp_speed", *arguments]
    done = subprocess.run(
        command, env=os.environ | variables, stdout=subprocess.PIPE, text=True, check=True
    )
    for line in done.stdout.splitlines():
        yield json.loads(line)


def together(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """One case of its repeats: medians, and the least and most of two ratios."""
    case = {key: runs[0][key] for key in ("model", "batch", "threads")}
    for name in COLUMNS:
        times = [run[name] for run in runs]
        case[name] = None if None in times else round(float(np.median(times)), 4)
    for key, over, under in (
        ("opacus_over_ours", "opacus_ms", "ours_secure_ms"),
        ("ours_over_plain", "ours_secure_ms", "plain_ms"),
        ("noise_over_ours", "ours_secure_ms", "ours_ms"),
    ):
        ratios = [run[over] / run[under] - (key == "noise_over_ours") for run in runs]
        case[key] = [round(min(ratios), 2), round(max(ratios), 2)]
    return case


def table(cases: list[dict[str, Any]]) -> None:
    """Print cases as rows of the README's table, ratios as least .. most of the repeats."""
    print(
        "| model | batch | ours, no noise | ours | Opacus | Opacus, ghost | no privacy | ", end=""
    )
    print("Opacus / ours | ours / no privacy | noise / ours, no noise |")
    print("|---|" + "---:|" * 9)
    for case in cases:
        times = ["-" if case[name] is None else f"{case[name]:.3g}" for name in COLUMNS]
        ratios = [
            f"{low:.2f} .. {high:.2f}"
            for low, high in (
                case["opacus_over_ours"], case["ours_over_plain"], case["noise_over_ours"],
            )
        ]  # fmt: skip
        print("| " + " | ".join([case["model"], str(case["batch"]), *times, *ratios]) + " |")


def main() -> None:
    """Run the command."""
    warnings.simplefilter("ignore")
    options = argparse.ArgumentParser(prog="benchmarks.dp_speed", description=__doc__)
    options.add_argument("--models", nargs="*", default=list(BATCHES), choices=list(BATCHES))
    options.add_argument("--threads", nargs="*", type=int, default=[1])
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
    torch.set_num_threads(chosen.threads[0])
    if chosen.inside == "speed":
        for model in chosen.models:
            for batch in BATCHES[model]:
                print(json.dumps(measure(model, batch, chosen.seconds)), flush=True)
        return
    if chosen.inside is not None:
        print(memory(chosen.inside))
        return
    cases = []
    for threads in chosen.threads:
        common = ["--threads", str(threads), "--seconds", str(chosen.seconds)]
        for model in chosen.models:
            command = ["--inside", "speed", *common, "--models", model]
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
