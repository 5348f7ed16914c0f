"""Asking running services how they are."""

from __future__ import annotations

from typing import Any

import httpx

from ledger.errors import CoordinatorUnreachable, MalformedInput
from ledger.formats.checkpoint import parse_checkpoint
from ledger.formats.note import parse_note

_TIMEOUT_S = 5.0


def coordinator_status(url: str) -> dict[str, str | int]:
    """Whether a coordinator is alive and sequencing, and its newest checkpoints.

    The checkpoints are its own word; ``ledger verify`` checks them.

    Raises:
        CoordinatorUnreachable: nobody answers there.
    """
    ready = _get(f"{url.rstrip('/')}/readyz")
    newest = _get(f"{url.rstrip('/')}/v1/checkpoint")
    final = _get(f"{url.rstrip('/')}/v1/checkpoint/final")
    try:
        said = ready.json()
        trouble, silent = said.get("quorum"), said.get("speaks") is False
    except (ValueError, AttributeError):
        trouble, silent = None, False
    return {
        "url": url,
        "ready": "yes" if ready.status_code == 200 else ready.text.strip()[:200],
        "entries": _size(newest),
        "final_entries": _size(final),
        "witness_quorum": str(trouble or "stands")[:600],
        "entry_key": "ended: no round opens until it has new ones" if silent else "active",
    }


def node_status(url: str) -> dict[str, Any]:
    """What a node says of itself.

    Raises:
        CoordinatorUnreachable: nobody answers there.
        MalformedInput: what answers is no node.
    """
    answer = _get(f"{url.rstrip('/')}/status")
    try:
        found = answer.json()
    except ValueError:
        found = None
    if answer.status_code != 200 or not isinstance(found, dict):
        raise MalformedInput(url, f"it is no node's status page (HTTP {answer.status_code})")
    return found


def _get(url: str) -> httpx.Response:
    try:
        with httpx.Client(timeout=_TIMEOUT_S, trust_env=False) as client:
            return client.get(url)
    except httpx.InvalidURL as error:
        raise MalformedInput(url, f"it is no URL ({error})") from None
    except httpx.RequestError as error:
        raise CoordinatorUnreachable(url, str(error) or type(error).__name__) from None


def _size(answer: httpx.Response) -> int:
    if answer.status_code != 200:
        return 0
    return parse_checkpoint(parse_note(answer.content).text).size
