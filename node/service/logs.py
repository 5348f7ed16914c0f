"""The node's log lines: structured, on standard error, without anything that depends on rows.

Field names and events are words of the protocol; values are handles, hashes, numbers of rounds and
reasons. No secret and no value of a record is ever logged: an error that nothing foresees is logged with its frames
and without their variables, among which are the hospital key and what patients spent.
"""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog
from structlog.tracebacks import ExceptionDictTransformer

_FRAMES_ALONE = ExceptionDictTransformer(show_locals=False)


def configure_logging(form: Literal["json", "text"]) -> None:
    """Write log lines to standard error.

    Args:
        form: ``json`` for machines, ``text`` for people.
    """
    renderers: tuple[structlog.typing.Processor, ...] = (
        (
            structlog.processors.ExceptionRenderer(_FRAMES_ALONE),
            structlog.processors.JSONRenderer(),
        )
        if form == "json"
        else (
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        )
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
