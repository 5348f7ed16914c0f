"""The outermost shell of ``consilium node run``: signals, the local API, opening and closing."""

from __future__ import annotations

import gc
import json
import resource
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import structlog

from ledger.exchange.home import Membership
from node.errors import PromiseExceeded, ServiceError
from node.register.private import PRIVATE, PrivateRegister
from node.register.promises import PromiseBook
from node.service.local_api import LocalServer
from node.service.logs import configure_logging
from node.service.loop import NodeService
from node.service.settings import NodeSettings
from node.training.process.trainer import NoopTrainer, Trainer, WorkerTrainer
from node.training.process.worker import Worker

_log = structlog.get_logger("node")


def run(membership: Membership, settings: NodeSettings) -> None:
    """Serve a node until SIGTERM or SIGINT. Call it in the process's main thread.

    Standard output gets one line of JSON when the local API answers; logs go to standard error.

    Args:
        membership: an open node's home; stays the caller's to close.
        settings: local.

    Raises:
        ServiceError: it is no node's home, or the local API cannot listen.
        PromiseExceeded: what this federation promises is not what the hospital's book allots to it.
        LedgerError: the register or the copy cannot be opened or written.
    """
    config = membership.config
    if config.role != "node":
        raise ServiceError(f"{membership.home.path} is a {config.role}'s home, not a node's")
    configure_logging(settings.log_format)
    # No dump of memory, which holds keys and what patients spent; the training process inherits it.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    private = PrivateRegister.open(membership.home.path / PRIVATE)
    if settings.promises is not None:
        cells = tuple(private.view.cells.values())
        periods = next((cell.periods for cell in cells if cell.periods is not None), None)
        try:
            PromiseBook(settings.promises).allot(
                membership.replica.federation,
                (cell.terms for cell in cells),
                None if periods is None else (periods.days, periods.from_ms),
            )
        except PromiseExceeded:
            private.close()
            raise
    service = NodeService(membership, private, settings, _trainer(settings))
    local = LocalServer(service)
    try:
        url = local.start()
        previous = _on_signals(service.stop)
        try:
            sys.stdout.write(json.dumps({"node": config.handle, "local": url}) + "\n")
            sys.stdout.flush()
            gc.freeze()  # what opening read stays: the collector need not walk it again
            _log.info("node.started", handle=config.handle, local=url)
            service.run()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
    finally:
        local.close()
        private.close()


def _trainer(settings: NodeSettings) -> Trainer:
    if settings.training == "noop":
        return NoopTrainer()
    return WorkerTrainer(Worker(), settings.round_limit_s)


def _on_signals(stop: Callable[[], None]) -> dict[signal.Signals, Any]:
    def handle(number: int, frame: FrameType | None) -> None:
        stop()

    return {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
