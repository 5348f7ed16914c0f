"""What the demo ends with: read from the verified ledger alone, for a table and for a program."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from audit.reports.budget import dataset_budget, merged, pld
from audit.reports.contribution.form import ContributionReport, Figure, SiteContribution
from audit.reports.contribution.report import contribution_report
from audit.verification.findings import Verdicts
from audit.verification.records import ExperimentRecord
from audit.verification.sources import close_copies, open_copies, parse_trust
from audit.verification.verify import Verification, verify_all
from consilium.demo.data import DemoData, DemoSite
from consilium.terminal import say_line, show_table
from privacy.histogram import MIN_DECLARED_PATIENTS


@dataclass(frozen=True, slots=True)
class HospitalResult:
    """One hospital's line.

    Attributes:
        epsilon_spent: at ``delta``, by the lanes' closed form.
        epsilon_pld: the same by privacy loss distributions.
        contribution: its part in the common model, and how good that and its own model are here.
    """

    name: str
    dataset: str
    epsilon_spent: float
    epsilon_pld: float
    epsilon_budget: float
    delta: float
    contribution: SiteContribution


@dataclass(frozen=True, slots=True)
class Result:
    """The demo's result.

    Attributes:
        seconds: all of it.
        round_seconds: from opening to sum, each round by the coordinator's clock.
        pooled: measures over all hospitals, of the common model; None where none were released.
        pooled_local: of the hospitals' own models.
    """

    out: Path
    rounds: int
    seconds: float
    round_seconds: tuple[float, ...]
    entries: int
    verdicts: Verdicts
    pooled: dict[str, Figure] | None
    pooled_local: dict[str, Figure] | None
    hospitals: tuple[HospitalResult, ...]
    model: Path
    model_sha256: str
    reports: dict[str, str]
    bundle: Path

    @property
    def verified(self) -> bool:
        """Nothing was refuted in any copy."""
        return self.verdicts.exit_code == 0

    def as_json(self) -> dict[str, object]:
        """The object that ``demo --json`` prints."""
        best = self.verdicts.best
        return {
            "out": str(self.out),
            "rounds": self.rounds,
            "seconds": round(self.seconds, 2),
            "round_seconds": [round(s, 3) for s in self.round_seconds],
            "entries": self.entries,
            "verify": {
                "ok": self.verified,
                "completeness": best.completeness(),
                "checks": best.as_json()["steps"],
                "copies": len(self.verdicts.reports),
            },
            "pooled": _values(self.pooled),
            "pooled_interval": _intervals(self.pooled),
            "pooled_local": _values(self.pooled_local),
            "hospitals": [_plain(hospital) for hospital in self.hospitals],
            "model": {"path": str(self.model), "sha256": self.model_sha256},
            "reports": self.reports,
            "bundle": str(self.bundle),
        }


def collect(
    folder: Path,
    *,
    bundle: Path,
    genesis: Path,
    model: Path,
    reports: dict[str, str],
    sites: Sequence[DemoSite],
    began: float,
) -> Result:
    """Verify every copy in the demo's folder, and read the result from the fullest one.

    Args:
        folder: the demo's.
        bundle: path of the exported ledger.
        genesis: what to trust.
        model: path of the model that was taken.
        reports: paths of the reports, by kind.
        sites: the hospitals, in the order to show.
        began: when the demo began, on the monotonic clock.
    """
    copies = open_copies(str(folder))
    try:
        verdicts, found = verify_all(copies, trust=parse_trust(str(genesis)))
        fullest = next(v for v in found if v.report is verdicts.best)
        history = fullest.history
        experiment = next(iter(history.experiments.values()))
        contribution = contribution_report(
            fullest, experiment.id, now_ms=time.time_ns() // 1_000_000, by="consilium demo"
        )
        return Result(
            out=folder,
            rounds=experiment.plan.rounds,
            seconds=time.monotonic() - began,
            round_seconds=_round_seconds(experiment),
            entries=fullest.report.size,
            verdicts=verdicts,
            pooled=contribution.pooled_federated,
            pooled_local=contribution.pooled_local,
            hospitals=tuple(_hospitals(fullest, contribution, sites)),
            model=model,
            model_sha256=hashlib.sha256(model.read_bytes()).hexdigest(),
            reports=reports,
            bundle=bundle,
        )
    finally:
        close_copies(copies)


def show_result(result: Result, data: DemoData) -> None:
    """Print the table, and where everything lies."""
    show_table("hospitals", [_row(hospital) for hospital in result.hospitals])
    say_line(
        f"null (<{MIN_DECLARED_PATIENTS}): a hospital with fewer declared test patients; "
        "null (noise): fewer than the noise lets be read. Both count in the pooled figures."
    )
    say_line("")
    for name, measured in (("common model", result.pooled), ("own models", result.pooled_local)):
        say_line(f"pooled over all hospitals, {name:12}  {_words(measured)}")
    median = sorted(result.round_seconds)[len(result.round_seconds) // 2]
    say_line(
        f"{result.rounds} rounds of training in {sum(result.round_seconds):.1f} s "
        f"(median {median:.2f} s), {result.entries} entries, {result.seconds:.1f} s in all"
    )
    verdict = "nothing was refuted" if result.verified else "REFUTED"
    say_line(
        f"audit verify: {verdict} in {len(result.verdicts.reports)} copies; "
        f"{result.verdicts.best.completeness()}"
    )
    say_line(f"rows: {data.about}")
    for name, path in {
        "model": str(result.model),
        "ledger": str(result.bundle),
        **{f"report ({kind})": path for kind, path in result.reports.items()},
    }.items():
        say_line(f"{name:14} {path}")


def _hospitals(
    found: Verification, contribution: ContributionReport, sites: Sequence[DemoSite]
) -> Iterator[HospitalResult]:
    by_dataset = {site.dataset: site for site in contribution.sites}
    for site in sites:
        worst = dataset_budget(found.history, found.state, site.schema.dataset).worst
        yield HospitalResult(
            name=site.hospital,
            dataset=site.schema.dataset,
            epsilon_spent=worst.epsilon,
            epsilon_pld=pld(merged(worst.events), worst.delta),
            epsilon_budget=worst.limit,
            delta=worst.delta,
            contribution=by_dataset[site.schema.dataset],
        )


def _plain(hospital: HospitalResult) -> dict[str, object]:
    site = hospital.contribution
    return {
        "name": hospital.name,
        "dataset": hospital.dataset,
        "patients_declared": site.declared_patients,
        "rounds_trained": site.rounds_trained,
        "rounds_measured": site.rounds_measured,
        "epsilon_spent": hospital.epsilon_spent,
        "epsilon_pld": hospital.epsilon_pld,
        "epsilon_budget": hospital.epsilon_budget,
        "delta": hospital.delta,
        "federated": _values(site.quality.federated),
        "local": _values(site.quality.local),
        "reason": site.quality.reason,
        "contribution": {
            "shapley": site.shapley.value,
            "leave_one_out": site.leave_one_out.value,
            "norm_share": site.norm_share.value,
        },
    }


def _round_seconds(experiment: ExperimentRecord) -> tuple[float, ...]:
    """Training rounds that ended in a sum, from opening to sum, by the coordinator's clock."""
    return tuple(
        (record.aggregated[0].at_ms - record.said.at_ms) / 1000
        for record in experiment.rounds
        if record.aggregated is not None and record.terms.kind == "train"
    )


def _row(hospital: HospitalResult) -> dict[str, object]:
    site = hospital.contribution
    federated, local = site.quality.federated, site.quality.local
    share = site.shapley.value
    return {
        "hospital": hospital.name,
        "patients": site.declared_patients,
        "rounds": site.rounds_trained,
        "epsilon": f"{hospital.epsilon_spent:.2f} of {hospital.epsilon_budget:g}",
        "by PLD": f"{hospital.epsilon_pld:.2f}",
        "contribution": "null" if share is None else f"{share:.3f}",
        "AUC": _number(federated, "auc"),
        "own AUC": _number(local, "auc"),
        "accuracy": _number(federated, "accuracy"),
        "own accuracy": _number(local, "accuracy"),
    }


def _number(figures: dict[str, Figure] | None, name: str) -> str:
    if figures is None:
        return f"null (<{MIN_DECLARED_PATIENTS})"
    value = figures[name].value if name in figures else None
    return "null (noise)" if value is None else f"{value:.3f}"


def _words(figures: dict[str, Figure] | None) -> str:
    parts = []
    for name in _SHOWN:
        figure = (figures or {}).get(name)
        if figure is None or figure.value is None:
            parts.append(f"{name} null")
        else:
            parts.append(f"{name} {figure.value:.3f} ({figure.low:.3f} .. {figure.high:.3f})")
    return ", ".join(parts)


def _values(figures: dict[str, Figure] | None) -> dict[str, float | None] | None:
    if figures is None:
        return None
    return {name: figures[name].value if name in figures else None for name in _SHOWN}


def _intervals(figures: dict[str, Figure] | None) -> dict[str, list[float | None]]:
    return {n: [figures[n].low, figures[n].high] for n in _SHOWN if figures and n in figures}


_SHOWN = ("auc", "accuracy")
