"""Asking running services how they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from pydantic import BaseModel, ValidationError

from consilium.actions.homes import find_home
from consilium.errors import InputError
from ledger.errors import CoordinatorUnreachable, MalformedInput
from ledger.formats.checkpoint import parse_checkpoint
from ledger.formats.note import parse_note

_TIMEOUT_S = 5.0


class _Local(BaseModel):
    """What a running node writes into its home, as far as it is of use here."""

    url: str


def coordinator_url(directory: Path) -> str:
    """The address of the coordinator whose home this is, or that the member of this home follows.

    Raises:
        HomeUnusable, InputError: it is neither.
    """
    from coordinator.settings import JSON, TOML, load_settings

    if not ((directory / JSON).is_file() or (directory / TOML).is_file()):
        return find_home(directory).config.url
    own = load_settings(directory)
    scheme = "http" if own.tls_certificate is None else "https"
    return f"{scheme}://{f'[{own.host}]' if ':' in own.host else own.host}:{own.port}"


def local_url(directory: Path) -> str:
    """The address that a node running from this home wrote down.

    Raises:
        InputError: it is no node's home, or no node runs from it.
    """
    from node.service.local_api import LOCAL_FILE

    home = find_home(directory, ("node",)).path
    try:
        return _Local.model_validate_json((home / LOCAL_FILE).read_bytes()).url
    except FileNotFoundError:
        raise InputError(
            f"{home}: no node runs from this home ({LOCAL_FILE} is not there); start it, or name "
            "another with --url"
        ) from None
    except (OSError, ValidationError) as error:
        raise InputError(f"{home / LOCAL_FILE}: it cannot be read ({error}); use --url") from None


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
        trouble, mute = said.get("quorum"), said.get("speaks") is False
        rounds, days = said.get("rounds"), said.get("certificate_days")
        away = [str(node)[:80] for node in list(said.get("silent") or ())[:64]]
    except (ValueError, AttributeError, TypeError):
        trouble, mute, rounds, days, away = None, False, None, None, []
    return {
        "url": url,
        "ready": "yes" if ready.status_code == 200 else ready.text.strip()[:200],
        "entries": _size(newest),
        "final_entries": _size(final),
        "witness_quorum": str(trouble or "stands")[:600],
        "silent_nodes": ", ".join(away) or "none",
        "rounds": str(rounds or "move")[:200],
        "certificate": f"{days} days left" if isinstance(days, int) else "not served here",
        "entry_key": "ended: no round opens until it has new ones" if mute else "active",
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


def tables_of(found: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """What of a status is best shown as tables: lists of things with the same fields."""
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, list)
        and value
        and all(isinstance(one, dict) and one.keys() == value[0].keys() for one in value)
    }


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
