"""The console: a read-only web page set over any copy of a ledger.

Server-rendered, whole without scripts. It verifies the copy itself and shows only what it checked;
the strip on every page is this process's own verdict. It changes nothing, has no form and no cookie,
loads nothing from elsewhere, and answers only to the host names it was started for (DNS rebinding).
It has no login: it binds to loopback unless told otherwise, and who can reach it can read all of it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from importlib import resources

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response

from audit.console import entry_pages, pages
from audit.console.render import certificate_html, contribution_html, data_use_html, render
from audit.console.strip import Strip, strip_of
from audit.console.watch import Watch
from audit.errors import NotInLedger, NotReleased
from audit.reports.certificate import certificate
from audit.reports.contribution.report import contribution_report
from audit.reports.data_use import data_use_report, spec_of
from audit.reports.outcomes import outcome_of
from audit.reports.standing import sealed_json
from audit.verification.findings import STEPS
from audit.verification.verify import LIMITS, Verification
from ledger.exchange.named_host import NamedHost

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAKER = "the console on this machine"
_ASSETS = {
    "console.css": "text/css; charset=utf-8",
    "local-time.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "htmx.LICENSE": "text/plain; charset=utf-8",
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_NEXT = Callable[[Request], Awaitable[Response]]


def create_app(
    at: str,
    *,
    trust: str | None = None,
    hosts: Sequence[str] = LOOPBACK,
    interval_s: float = 2.0,
) -> FastAPI:
    """Make the console over a copy.

    Args:
        at: a bundle, a home, a directory of copies, or a database URL.
        trust: federation id from outside (`audit.verification.sources.parse_trust`), or None.
        hosts: host names it answers to.
        interval_s: seconds between looks at the copy.
    """
    watch = Watch(at, trust=trust, interval_s=interval_s)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        watch.start()
        yield
        watch.close()

    app = FastAPI(
        title="Consilium console",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.watch = watch
    app.add_middleware(NamedHost, names=hosts)

    @app.middleware("http")
    async def guard(request: Request, call_next: _NEXT) -> Response:
        if request.method not in ("GET", "HEAD"):
            return Response("read-only\n", status_code=405, headers={"Allow": "GET, HEAD"})
        response = await call_next(request)
        response.headers.update(_HEADERS)
        if not request.url.path.startswith("/static/"):
            response.headers["Cache-Control"] = "no-store"
        return response

    @app.exception_handler(NotInLedger)
    def absent(request: Request, error: NotInLedger) -> HTMLResponse:
        return _page(watch, "absent.html", 404, title="Not in this ledger", said=str(error))

    @app.exception_handler(NotReleased)
    def unreleased(request: Request, error: NotReleased) -> HTMLResponse:
        return _page(watch, "absent.html", 404, title="Not released", said=str(error))

    _add_pages(app, watch)
    _add_reports(app, watch)
    _add_assets(app)
    return app


def _add_pages(app: FastAPI, watch: Watch) -> None:
    @app.get("/")
    def overview() -> HTMLResponse:
        found = _found(watch)
        if found is None:
            return verify_state()
        return _page(
            watch,
            "overview.html",
            title="Overview",
            found=found,
            waiting=pages.waiting(found),
            datasets=pages.dataset_rows(found),
            experiments=_experiments(found)[:5],
            lines=entry_pages.ledger_lines(found, max(0, found.replay.size - 6), found.replay.size)[
                ::-1
            ],
        )

    @app.get("/datasets")
    def datasets() -> HTMLResponse:
        found = _need(watch)
        return _page(watch, "datasets.html", title="Datasets", rows=pages.dataset_rows(found))

    @app.get("/datasets/{name}")
    def dataset(name: str) -> HTMLResponse:
        return _page(watch, "dataset.html", title=name, page=pages.dataset_page(_need(watch), name))

    @app.get("/experiments")
    def experiments() -> HTMLResponse:
        rows = _experiments(_need(watch))
        return _page(watch, "experiments.html", title="Experiments", rows=rows)

    @app.get("/experiments/{identity}")
    def experiment(identity: str) -> HTMLResponse:
        values = pages.experiment_values(_need(watch), identity)
        name = values["experiment"].terms.name
        return _page(watch, "experiment.html", title=name, **values)

    @app.get("/members")
    def members() -> HTMLResponse:
        found = _need(watch)
        ended = pages.ended_by_evidence(found.state)
        return _page(watch, "members.html", title="Members", found=found, ended=ended)

    @app.get("/ledger")
    def ledger(before: int | None = None) -> HTMLResponse:
        found = _need(watch)
        stop = found.replay.size if before is None else max(1, min(before, found.replay.size))
        start = max(0, stop - entry_pages.PAGE)
        lines = entry_pages.ledger_lines(found, start, stop)[::-1]
        return _page(
            watch, "ledger.html", title="Ledger", found=found, lines=lines, start=start, stop=stop
        )

    @app.get("/entries/{index}")
    def entry(index: int) -> HTMLResponse:
        page = entry_pages.entry_page(_need(watch), index)
        return _page(watch, "entry.html", title=f"Entry {index:,}", page=page)

    @app.get("/entries/{index}/leaf")
    def leaf(index: int) -> Response:
        data = entry_pages.one_entry(_need(watch), index).leaf
        return _download(data, f"entry-{index}.leaf", "application/octet-stream")

    @app.get("/entries/{index}/proof")
    def proof(index: int) -> Response:
        data = entry_pages.entry_proof(_need(watch), index)
        return _download(data, f"entry-{index}.tlog-proof", "text/plain; charset=utf-8")

    @app.get("/verify")
    def verify_state() -> HTMLResponse:
        checked = watch.current
        return _page(
            watch,
            "verify.html",
            title="How we know",
            checked=checked,
            steps=STEPS,
            limits=LIMITS,
            note=checked.found.notes.note.decode()
            if checked.found and checked.found.notes.note
            else "",
        )

    @app.get("/strip")
    def strip(seen: int = 0, page: int = 0) -> Response:
        checked, stopped = watch.current, watch.stopped
        if checked.number == seen and not stopped:
            return Response(status_code=204)
        return HTMLResponse(
            render("strip.html", strip=strip_of(checked, page=page, stopped=stopped))
        )


def _add_reports(app: FastAPI, watch: Watch) -> None:
    @app.get("/reports")
    def reports() -> HTMLResponse:
        found = _need(watch)
        return _page(
            watch,
            "reports.html",
            title="Reports",
            datasets=sorted(found.history.datasets),
            experiments=_experiments(found),
        )

    @app.get("/datasets/{name}/report")
    def data_use(name: str) -> HTMLResponse:
        report = data_use_report(_need(watch), name, now_ms=_now_ms(), by=MAKER)
        return HTMLResponse(data_use_html(report, strip=_strip(watch)))

    @app.get("/datasets/{name}/report.json")
    def data_use_json(name: str) -> Response:
        report = data_use_report(_need(watch), name, now_ms=_now_ms(), by=MAKER)
        return _download(sealed_json(report), f"data-use-{name}.json", "application/json")

    @app.get("/experiments/{identity}/contribution")
    def contribution(identity: str) -> HTMLResponse:
        report = contribution_report(_need(watch), identity, now_ms=_now_ms(), by=MAKER)
        return HTMLResponse(contribution_html(report, strip=_strip(watch)))

    @app.get("/experiments/{identity}/contribution.json")
    def contribution_json(identity: str) -> Response:
        report = contribution_report(_need(watch), identity, now_ms=_now_ms(), by=MAKER)
        name = f"contribution-{report.name}.json"
        return _download(sealed_json(report), name, "application/json")

    @app.get("/experiments/{identity}/certificate")
    def privacy_certificate(identity: str) -> HTMLResponse:
        report = certificate(_need(watch), identity, now_ms=_now_ms(), by=MAKER)
        return HTMLResponse(certificate_html(report, strip=_strip(watch)))

    @app.get("/experiments/{identity}/certificate.json")
    def privacy_certificate_json(identity: str) -> Response:
        report = certificate(_need(watch), identity, now_ms=_now_ms(), by=MAKER)
        return _download(sealed_json(report), f"privacy-{report.name}.json", "application/json")


def _add_assets(app: FastAPI) -> None:
    folder = resources.files("audit").joinpath("static")

    @app.get("/static/{name}")
    def asset(name: str) -> Response:
        if name not in _ASSETS:
            return Response("no such file\n", status_code=404)
        return Response(folder.joinpath(name).read_bytes(), media_type=_ASSETS[name])


def _strip(watch: Watch) -> Strip:
    return strip_of(watch.current, stopped=watch.stopped)


def _page(watch: Watch, template: str, status: int = 200, **values: object) -> HTMLResponse:
    checked = watch.current
    found = checked.found
    html = render(
        template,
        strip=_strip(watch),
        report=checked.report,
        federation=found.state.name if found else "",
        css=None,
        **values,
    )
    return HTMLResponse(html, status)


def _found(watch: Watch) -> Verification | None:
    return watch.current.found


def _need(watch: Watch) -> Verification:
    found = watch.current.found
    if found is None:
        raise NotInLedger("page", "this", "nothing, since no entry of the copy could be followed")
    return found


def _newest(found: Verification) -> list[entry_pages.LedgerLine]:
    size = found.replay.size
    return entry_pages.ledger_lines(found, max(0, size - 6), size)


def _experiments(found: Verification) -> list[tuple[object, object, str]]:
    """Experiments, newest first, with outcome and title."""
    rows: list[tuple[object, object, str]] = []
    for each in reversed(found.history.experiments.values()):
        spec = spec_of(found, each)
        title = spec.title if spec else "its specification is not in this copy"
        rows.append((each, outcome_of(each), title))
    return rows


def _download(data: bytes, name: str, media: str) -> Response:
    disposition = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(data, media_type=media, headers=disposition)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
