"""Writing an auditor's reports into files: as a page, or sealed JSON with the same content.

Every report stands on a verification that is made here, of the copy that it is read from, and names
the checkpoint of that copy. A report on a copy in which something was refuted says so on its face.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import orjson

from audit.console.render import certificate_html, contribution_html, data_use_html, index_html
from audit.reports.certificate import Certificate, certificate
from audit.reports.contribution.form import ContributionReport
from audit.reports.contribution.report import contribution_report
from audit.reports.data_use import data_use_report
from audit.reports.data_use_form import DataUseReport
from audit.reports.privacy_events import events_json
from audit.reports.standing import sealed_json
from audit.verification.sources import close_copies, open_copies, parse_trust
from audit.verification.verify import Verification, verify
from consilium.actions.audit.budget_report import budget_csv, budget_report
from consilium.actions.files import make_folder, write_file
from consilium.errors import InputError
from consilium.naming import the_dataset, the_experiment

Report = DataUseReport | ContributionReport | Certificate
FORMATS = (".html", ".json")


@contextmanager
def verified(at: str, trust: str | None = None) -> Iterator[Verification]:
    """The fullest copy at a place, verified.

    Raises:
        SourceUnusable, BadTrustAnchor: it cannot be read, or the anchor is none.
        InputError: nothing in it can be followed.
    """
    anchor = None if trust is None else parse_trust(trust)
    copies = open_copies(at)
    try:
        found = [verify(copy, trust=anchor) for copy in copies]
        fullest = min(found, key=lambda v: (-v.report.size, len(v.report.unchecked)))
        if fullest.report.size == 0:
            raise InputError(f"{at}: not even its first entry can be read; run audit verify on it")
        yield fullest
    finally:
        close_copies(copies)


def data_use(found: Verification, dataset: str | None, by: str) -> DataUseReport:
    """The data-use report on a dataset; without a name, on the only one."""
    known = sorted(found.state.datasets)
    name = dataset or _only("dataset", known, "--dataset")
    the_dataset(found.state, name)
    return data_use_report(found, name, now_ms=_now_ms(), by=by)


def contribution(found: Verification, experiment: str | None, by: str) -> ContributionReport:
    """The contribution report on an experiment; without a name, on the only one."""
    known = sorted(found.state.experiments)
    name = experiment or _only("experiment", known, "--experiment")
    chosen = the_experiment(found.state, name)
    return contribution_report(found, chosen.id, now_ms=_now_ms(), by=by)


def privacy_certificate(found: Verification, experiment: str | None, by: str) -> Certificate:
    """The certificate of a released model; without a name, of the only experiment."""
    known = sorted(found.state.experiments)
    name = experiment or _only("experiment", known, "--experiment")
    chosen = the_experiment(found.state, name)
    return certificate(found, chosen.id, now_ms=_now_ms(), by=by)


def write_report(report: Report, out: Path) -> None:
    """Write a report in the format that the file's name asks for; the file appears whole.

    Raises:
        InputError: another format, or the file cannot be written.
    """
    if out.suffix not in FORMATS:
        raise InputError(f"{out}: reports are written as {' or '.join(FORMATS)}")
    if out.suffix == ".json":
        data = sealed_json(report)
    elif isinstance(report, DataUseReport):
        data = data_use_html(report).encode()
    elif isinstance(report, Certificate):
        data = certificate_html(report).encode()
    else:
        data = contribution_html(report).encode()
    write_file(out, data)


def write_budget(found: Verification, out: Path, by: str) -> None:
    """Write the budget report, as sealed JSON or as CSV.

    Raises:
        InputError: another format, or the file cannot be written.
    """
    report = budget_report(found, by)
    if out.suffix == ".json":
        write_file(out, sealed_json(report))
    elif out.suffix == ".csv":
        write_file(out, budget_csv(report).encode())
    else:
        raise InputError(f"{out}: the budget is written as .json or .csv")


def write_events(found: Verification, out: Path, auditor: Path | None) -> None:
    """Write the list of privacy events and, where asked, the script that recomputes it.

    Raises:
        InputError: another format, or a file cannot be written.
    """
    if out.suffix != ".json":
        raise InputError(f"{out}: privacy events are written as .json")
    write_file(out, events_json(found))
    if auditor is not None:
        script = resources.files("audit").joinpath("standalone", "recompute_budget.py")
        write_file(auditor, script.read_bytes())


def write_all(found: Verification, folder: Path, by: str) -> dict[str, str]:
    """Write every kind of report on everything in a ledger, and an index of them.

    Returns:
        ``html``: the folder's ``index.html``; ``json``: its ``index.json``, with the path of each.

    Raises:
        InputError: the folder or a file in it cannot be written.
    """
    make_folder(folder)
    uses = {f"data-use-{name}": name for name in sorted(found.state.datasets)}
    reports: dict[str, Report] = {f: data_use(found, name, by) for f, name in uses.items()}
    contributions: dict[str, str] = {}
    certificates: dict[str, str] = {}
    for experiment in found.state.experiments.values():
        ending = f"{experiment.name}-{experiment.id[:8]}"
        contributions[f"contribution-{ending}"] = experiment.name
        reports[f"contribution-{ending}"] = contribution(found, experiment.id, by)
        if found.history.experiments[experiment.id].released is not None:
            certificates[f"privacy-{ending}"] = experiment.name
            reports[f"privacy-{ending}"] = privacy_certificate(found, experiment.id, by)
    for name, report in reports.items():
        for suffix in FORMATS:
            write_report(report, folder / f"{name}{suffix}")
    for suffix in (".json", ".csv"):
        write_budget(found, folder / f"budget{suffix}", by)
    index_json = folder / "index.json"
    listed = {n: {s[1:]: str(folder / f"{n}{s}") for s in FORMATS} for n in reports}
    listed["budget"] = {s[1:]: str(folder / f"budget{s}") for s in (".json", ".csv")}
    write_file(index_json, orjson.dumps(listed, option=orjson.OPT_INDENT_2))
    page = index_html(uses, contributions, certificates, completeness=found.report.completeness())
    write_file(folder / "index.html", page.encode())
    return {"html": str(folder / "index.html"), "json": str(index_json)}


def _only(kind: str, known: list[str], flag: str) -> str:
    if len(known) != 1:
        listed = ", ".join(name[:40] for name in known) or "none"
        raise InputError(f"say which {kind} with {flag}; there are: {listed}")
    return known[0]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
