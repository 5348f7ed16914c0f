"""Pages from values: one jinja2 environment, always escaping, and the filters that people read.

Dates are shown in words with the exact time behind them (``<time datetime>``); a page's small script
turns them into the reader's own locale and zone where scripts run, and the page is whole without it.
Epsilon is never shown without its limit, its delta and its unit.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from audit.console.charts import Bar, Step, budget_bar, epsilon_curve, interval_bars, spend_chart
from audit.console.strip import Strip
from audit.reports.certificate import Certificate
from audit.reports.contribution.form import ContributionReport
from audit.reports.data_use_form import DataUseReport
from audit.reports.sentences.told import organisation_name
from audit.verification.findings import TITLES
from ledger.experiment.round_words import round_name

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


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
        round_name=round_name,
        figure=figure_words,
        spread=spread_words,
        nicely=lambda text: str(text).replace("_", " "),
    )
    made.globals.update(titles=TITLES, budget_bar=budget_bar)
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
        chart=interval_bars(bars, words=words),
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


def stylesheet() -> str:
    """The one stylesheet."""
    return resources.files("audit").joinpath("static/console.css").read_text("utf-8")


def when(at_ms: int | None) -> Markup:
    """A moment: date and minute in words, the exact time behind it."""
    return _time(at_ms, "moment", lambda t: f"{t.day} {t:%B %Y, %H:%M}")


def day(at_ms: int | None) -> Markup:
    """A day in words, the exact time behind it."""
    return _time(at_ms, "day", lambda t: f"{t.day} {t:%b %Y}")


def delta_words(delta: float) -> str:
    """1e-05 as 10⁻⁵, 2.5e-06 as 2.5 × 10⁻⁶."""
    mantissa, _, exponent = f"{delta:.1e}".partition("e")
    power = f"10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    number = mantissa.removesuffix(".0")
    return power if number == "1" else f"{number} × {power}"


def epsilon_words(epsilon: float) -> str:
    """Two decimals, and never 0.00 for something that was spent."""
    return "0" if epsilon == 0 else "< 0.01" if epsilon < 0.01 else f"{epsilon:.2f}"


def many(count: int, noun: str) -> str:
    """1 experiment, 2 experiments."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def figure_words(figure: object, decimals: int = 3) -> str:
    """A report's figure, or a dash."""
    value = getattr(figure, "value", None)
    return "–" if value is None else f"{value:.{decimals}f}"


def spread_words(figure: object, decimals: int = 3) -> str:
    """A figure's spread, or why there is no figure."""
    low, high = getattr(figure, "low", None), getattr(figure, "high", None)
    if low is not None and high is not None:
        return f"{low:.{decimals}f} to {high:.{decimals}f}"
    return getattr(figure, "reason", None) or ""


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
