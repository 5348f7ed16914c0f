"""Refusals and answers as HTTP: one table from error to status, one shape of JSON.

A refusal is ``{"error", "where", "reason"}``. A stranger never sees a traceback, a path or a
database's words.
"""

from __future__ import annotations

from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from coordinator.errors import (
    AccessDenied,
    BehindItsLog,
    BodyTooLarge,
    CoordinatorError,
    DiskFull,
    Mishap,
    NeverTaken,
    NotSequencing,
    Overloaded,
    QuotaExceeded,
    Refilling,
    RefillRefused,
    RolledBack,
    StorageExceeded,
)
from ledger.errors import (
    BadSignature,
    BlobCorrupt,
    BlobMissing,
    ForkDetected,
    LedgerError,
    MalformedInput,
    NotAdmitted,
    NotConsistent,
    OutsideTree,
    Refused,
    UnknownKey,
    UploadOutOfStep,
)

STATUS: tuple[tuple[type[Exception], int], ...] = (
    (MalformedInput, 400),
    (BadSignature, 403),
    (UnknownKey, 403),
    (AccessDenied, 403),
    (BlobMissing, 404),
    (OutsideTree, 404),
    (NotAdmitted, 409),
    (NotConsistent, 409),
    (UploadOutOfStep, 409),
    (BehindItsLog, 409),
    (RolledBack, 409),
    (RefillRefused, 409),
    (ForkDetected, 409),
    (BodyTooLarge, 413),
    (NeverTaken, 413),
    (QuotaExceeded, 429),
    (StorageExceeded, 429),
    (Mishap, 500),
    (NotSequencing, 503),
    (Overloaded, 503),
    (DiskFull, 503),
    (Refilling, 503),
    (Refused, 400),
)

_log = structlog.get_logger("coordinator.http.api")


def json_answer(
    content: object, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """An answer in JSON."""
    return Response(orjson.dumps(content), status, headers=headers, media_type="application/json")


def refuse_in_json(app: FastAPI) -> None:
    """Make an application answer every error in one shape."""

    async def known(request: Request, error: Exception) -> Response:
        return _answer(request, error)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first: dict[str, Any] = dict(next(iter(error.errors()), {}))
        where = ".".join(str(part) for part in first.get("loc", ("request",)))
        return _json("MalformedInput", where, str(first.get("msg", "it cannot be"))[:200], 400)

    async def plain(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _json("HTTP", request.url.path[:200], str(error.detail)[:200], error.status_code)

    async def crash(request: Request, error: Exception) -> Response:
        _log.error("internal error", path=request.url.path, exc_info=error)
        return _json("Internal", "request", "an internal error; see the coordinator's log", 500)

    app.add_exception_handler(LedgerError, known)
    app.add_exception_handler(CoordinatorError, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, plain)
    app.add_exception_handler(Exception, crash)


def _answer(request: Request, error: Exception) -> Response:
    status = next((code for kind, code in STATUS if isinstance(error, kind)), 500)
    name = type(error).__name__
    headers: dict[str, str] = {}
    where, reason = "request", str(error)
    if isinstance(error, Refused | AccessDenied | RefillRefused):
        where, reason = error.where, error.reason
    elif isinstance(error, NotSequencing):
        where, reason = "log", error.reason
        headers["retry-after"] = "5"
    elif isinstance(error, BlobMissing | BlobCorrupt):
        where, reason = f"blob {error.path.name[:12]}", "it is not here"
    if isinstance(error, UploadOutOfStep):
        headers["upload-offset"] = str(error.expected)
    if isinstance(error, QuotaExceeded):
        where = error.handle
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    if isinstance(error, StorageExceeded):
        where = error.handle
        headers["retry-after"] = "60"
    if isinstance(error, Overloaded | DiskFull):
        headers["retry-after"] = "1" if isinstance(error, Overloaded) else "300"
    if status == 500 and not isinstance(error, Mishap):
        _log.error("request failed", path=request.url.path, exc_info=error)
        reason = "the coordinator cannot answer now; see its log"
    return _json(name, where, reason, status, headers)


def _json(
    error: str, where: str, reason: str, status: int, headers: dict[str, str] | None = None
) -> Response:
    return json_answer({"error": error, "where": where, "reason": reason}, status, headers)
