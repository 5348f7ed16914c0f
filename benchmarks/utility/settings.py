"""What each case measures, and the lines that come of it."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from benchmarks.utility import cases
from benchmarks.utility.federation import Rows, Setting, assemble, recomputed, scores, train
from privacy.masking.roster import threshold

HEART_SPLITS = 20
MOST_WITHOUT_NOISE = 20
"""Splits of a line without privacy; its runs differ by the split alone."""
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Split:
    """How patients are held out.

    Attributes:
        name: for the line.
        groups: number of splits that a mean is over; the runs of each differ by noise alone.
        held_out: the test patients of a split.
        per_split: every run count is spent on each split, instead of one split a run.
    """

    name: str
    groups: int
    held_out: Callable[[Rows, int], Mask]
    per_split: bool


FLAMBY = Split("FLamby's", 1, lambda rows, _: cases.flamby(rows), per_split=True)
RANDOM_HEART = Split(f"{HEART_SPLITS} random", HEART_SPLITS, cases.random_heart, per_split=True)
RANDOM = Split("random in each run", 0, cases.random_patients, per_split=False)


def _case_heart(folder: Path) -> Iterator[tuple[str, Rows, Split, Setting]]:
    rows, delta = cases.heart(folder), 1e-5
    for split in (FLAMBY, RANDOM_HEART):
        for setting in (
            Setting(1.0, delta),
            Setting(1.0, delta, recipe="house"),
            Setting(3.0, delta, shared=True),
            Setting(3.0, delta, shared=True, recipe="house"),
            Setting(10.0, delta),
            Setting(10.0, delta, recipe="house"),
            Setting(None, delta),
        ):
            yield "heart", rows, split, setting


def _case_countries(folder: Path) -> Iterator[tuple[str, Rows, Split, Setting]]:
    rows, delta = cases.ist(folder, "COUNTRY"), 1e-5
    for setting in (
        Setting(1.0, delta, shared=True),
        Setting(1.0, delta, shared=True, recipe="house"),
        Setting(1.0, delta),
        Setting(None, delta),
    ):
        yield "ist-countries", rows, RANDOM, setting
    known = cases.ist(folder, "COUNTRY", country=True)
    for setting in (Setting(1.0, delta, shared=True), Setting(None, delta)):
        yield "ist-countries, country known", known, RANDOM, setting


def _case_hospitals(folder: Path) -> Iterator[tuple[str, Rows, Split, Setting]]:
    rows, delta = cases.ist(folder, "HOSPNUM"), 1e-5
    for setting in (
        Setting(1.0, delta, shared=True, one_process=True),
        Setting(1.0, delta, shared=True, one_process=True, recipe="house"),
    ):
        yield "ist-hospitals", rows, RANDOM, setting
    known = cases.ist(folder, "HOSPNUM", country=True)
    yield (
        "ist-hospitals, country known",
        known,
        RANDOM,
        Setting(1.0, delta, shared=True, one_process=True),
    )


def _case_diabetes(folder: Path) -> Iterator[tuple[str, Rows, Split, Setting]]:
    delta = 1e-6
    any_time = cases.diabetes(folder, (">30", "<30"))
    for setting in (
        Setting(3.0, delta),
        Setting(3.0, delta, recipe="house"),
        Setting(None, delta),
    ):
        yield "diabetes", any_time, RANDOM, setting
    yield "diabetes-30-days", cases.diabetes(folder, ("<30",)), RANDOM, Setting(3.0, delta)


CASES: dict[str, Callable[[Path], Iterator[tuple[str, Rows, Split, Setting]]]] = {
    "heart": _case_heart,
    "ist-countries": _case_countries,
    "ist-hospitals": _case_hospitals,
    "diabetes": _case_diabetes,
}


def lines(case: str, folder: Path, runs: int) -> Iterator[dict[str, object]]:
    """Measure a case, one line a setting."""
    for name, rows, split, setting in CASES[case](folder):
        yield measured(name, rows, split, setting, runs)


def measured(case: str, rows: Rows, split: Split, setting: Setting, runs: int) -> dict[str, object]:
    """Train ``runs`` times (on each split, where the splits are fixed) and measure on the held-out rows."""
    began = time.perf_counter()
    federation = assemble(rows, setting)
    groups = split.groups if split.per_split else runs
    draws = runs if split.per_split else 1
    if setting.epsilon is None:  # nothing is drawn
        groups, draws = min(groups, MOST_WITHOUT_NOISE), 1
    means, plain, reference = [], [], []
    for number in range(groups):
        held_out = split.held_out(rows, number)
        found = [
            _measures(
                rows, held_out, scores(rows, train(rows, federation, held_out, setting.one_process))
            )
            for _ in range(draws)
        ]
        means.append(np.array(found))
        if setting.epsilon is None:
            plain.append(_measures(rows, held_out, _without_privacy(rows, held_out))[0])
        if rows.reference is not None:
            test = held_out[rows.units]
            reference.append(float(roc_auc_score(rows.targets[test], rows.reference[test])))
        print(f"{case} {setting}: {number + 1} of {groups}", file=sys.stderr)
    per_group = np.array([one.mean(axis=0) for one in means])
    spread = per_group[:, 0] if groups > 1 else means[0][:, 0]
    auc, weighted, centre = per_group.mean(axis=0)
    line: dict[str, object] = {
        "case": case,
        "split": split.name,
        "runs": groups * draws,
        "epsilon": setting.epsilon,
        "delta": setting.delta,
        "noise": _noise(setting),
        "recipe": setting.recipe,
        "auc": round(float(auc), 5),
        "auc_se": round(statistics.stdev(spread) / math.sqrt(len(spread)), 5)
        if len(spread) > 1
        else None,
        "auc_least": round(float(min(spread)), 5),
        "accuracy_mean": round(float(centre), 5),
        "accuracy_weighted": round(float(weighted), 5),
        "rounds": federation.spec.rounds,
        "learning_rate": float(federation.spec.learning_rate),
        "clip_norm": float(federation.spec.clip_norm),
        "parameters": federation.plan.parameters,
        "sites": len(rows.names),
        "train": sum(site.divisor for site in federation.plan.sites),
        "test": int(split.held_out(rows, 0).sum()),
        "epsilon_recomputed": recomputed(federation, setting),
    }
    if setting.shared:
        line |= {
            "h_min": federation.honest,
            "t": threshold(len(rows.names)),
            "c": federation.colluders,
        }
    if rows.reference is not None:
        line["auc_trialists"] = round(statistics.fmean(reference), 5)
        line["auc_above_trialists_least"] = round(
            float(min(per_group[:, 0] - np.array(reference))), 5
        )
    if plain:
        line["auc_unclipped"] = round(statistics.fmean(plain), 5)
    return line | {"seconds": round(time.perf_counter() - began, 1)}


def _noise(setting: Setting) -> str:
    if setting.epsilon is None:
        return "none"
    if setting.one_process:
        return "secure sum, its arithmetic only"
    return "secure sum" if setting.shared else "each hospital its own, full"


def _measures(
    rows: Rows, held_out: Mask, found: npt.NDArray[np.float64]
) -> tuple[float, float, float]:
    """AUC of all test rows, accuracy over records, and its mean over the hospitals."""
    test = held_out[rows.units]
    right = (found >= 0) == (rows.targets == 1)
    sites = rows.sites[rows.units]
    centres = [right[test & (sites == index)] for index in range(len(rows.names))]
    return (
        float(roc_auc_score(rows.targets[test], found[test])),
        float(right[test].mean()),
        float(np.mean([centre.mean() for centre in centres if len(centre)])),
    )


def _without_privacy(rows: Rows, held_out: Mask) -> npt.NDArray[np.float64]:
    """The same model fitted to its optimum on all rows in one place, no clip: scikit-learn's."""
    kept = ~held_out[rows.units]
    model = LogisticRegression(C=1.0, max_iter=1000)
    model.fit(rows.features[kept], rows.targets[kept])
    logits: npt.NDArray[np.float64] = model.decision_function(rows.features)
    return logits
