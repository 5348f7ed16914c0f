"""Pages from values: one jinja2 environment, always escaping, and the filters that people read.

Dates are shown in words with the exact time behind them (``<time datetime>``); a page's small script
turns them into the reader's own locale and zone where scripts run, and the page is whole without it.
Epsilon is never shown without its limit, its delta and its unit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from audit.console.charts import Bar, Step, budget_bar, epsilon_curve, interval_bars, spend_chart
from audit.console.narrow import label_cells
from audit.console.numbers import (
    delta_words,
    epsilon_words,
    figure_words,
    many,
    spread_words,
)
from audit.console.strip import Strip
from audit.reports.certificate import Certificate
from audit.reports.contribution.form import ContributionReport
from audit.reports.data_use_form import DataUseReport
from audit.reports.sentences.told import organisation_name
from audit.verification.findings import TITLES
from ledger.experiment.round_words import round_name

_DAY_MS = 86_400_000


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The environment with all filters; made once."""
    made = Environment(
        loader=PackageLoader("audit", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        when=when,
        day=day,
        delta=delta_words,
        eps=epsilon_words,
        number=lambda value: f"{value:,}",
        short=lambda text: f"{text[:8]}…{text[-4:]}" if len(text) > 14 else text,
        many=many,
        org=organisation_name,
        label_cells=label_cells,
        round_name=round_name,
        figure=figure_words,
        spread=spread_words,
        nicely=lambda text: str(text).replace("_", " "),
    )
    made.globals.update(titles=TITLES, budget_bar=budget_bar, days=days)
    return made


def render(template: str, **values: object) -> str:
    """Render a template of this package."""
    return environment().get_template(template).render(**values)


def data_use_html(report: DataUseReport, *, strip: Strip | None = None) -> str:
    """The data-use report as a page.

    Args:
        report: the same content as its JSON.
        strip: for the console, its strip; without, one file with its stylesheet inside.
    """
    worst = next(c for c in report.privacy.cells if c.cell == report.privacy.worst_cell)
    chart = spend_chart(
        [Step(at, value) for _, at, value in worst.curve],
        worst.limit,
        open_end=report.privacy.epsilon_reserved_only > 1e-9,
        days=None if worst.renewal is None else worst.renewal.days,
    )
    return render(
        "report_data_use.html",
        title=f"Data use of {report.header.subject}",
        report=report,
        chart=chart,
        css=_inlined(strip),
        strip=strip,
        federation="",
    )


def contribution_html(report: ContributionReport, *, strip: Strip | None = None) -> str:
    """The contribution report as a page; see `data_use_html`."""
    bars = [Bar(s.dataset, s.shapley.value, s.shapley.low, s.shapley.high) for s in report.sites]
    words = "Mean Shapley value of each dataset with its spread over rounds; the table has figures."
    return render(
        "report_contribution.html",
        title=f"Contributions to {report.name}",
        report=report,
        chart=interval_bars(bars, unit="share of the direction", words=words),
        css=_inlined(strip),
        strip=strip,
        federation="",
    )


def certificate_html(report: Certificate, *, strip: Strip | None = None) -> str:
    """The privacy certificate as a page; see `data_use_html`."""
    return render(
        "report_certificate.html",
        title=f"Privacy certificate of {report.name}",
        report=report,
        chart=epsilon_curve([(point.delta, point.epsilon) for point in report.curve]),
        css=_inlined(strip),
        strip=strip,
        federation="",
    )


def index_html(
    data_use: Mapping[str, str],
    contributions: Mapping[str, str],
    certificates: Mapping[str, str],
    *,
    completeness: str,
) -> str:
    """The first page of a folder of reports.

    Args:
        data_use: from a file's name without its suffix to the dataset it is about.
        contributions: the same to experiments.
        certificates: the same to experiments whose model was released.
        completeness: of the copy that they stand on, in words.
    """
    groups = (
        ("Data use and privacy, by dataset", data_use),
        ("Contribution, by experiment", contributions),
        ("Privacy certificate, by released model", certificates),
    )
    return render(
        "report_index.html",
        title="Reports",
        groups=groups,
        completeness=completeness,
        css=stylesheet(),
        strip=None,
        federation="",
    )


def stylesheet() -> str:
    """The one stylesheet."""
    return resources.files("audit").joinpath("static/console.css").read_text("utf-8")


def when(at_ms: int | None) -> Markup:
    """A moment: date and minute in words, the exact time behind it."""
    return _time(at_ms, "moment", lambda t: f"{t.day} {t:%B %Y, %H:%M}")


def day(at_ms: int | None) -> Markup:
    """A day in words, the exact time behind it."""
    return _time(at_ms, "day", lambda t: f"{t.day} {t:%b %Y}")


def days(first_ms: int, last_ms: int) -> Markup:
    """From one day to another, or the one day."""
    first, last = (at // _DAY_MS for at in (first_ms, last_ms))
    return (
        day(first_ms) if first == last else Markup("{} to {}").format(day(first_ms), day(last_ms))
    )


def _time(at_ms: int | None, kind: str, shape: Callable[[datetime], str]) -> Markup:
    if at_ms is None:
        return Markup("—")
    try:
        moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return Markup("no end")
    exact = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}" title="{}" data-show="{}">{}</time>').format(
        exact, exact, kind, shape(moment)
    )


def _inlined(strip: Strip | None) -> Markup | None:
    return Markup(stylesheet()) if strip is None else None  # noqa: S704 - our own file
