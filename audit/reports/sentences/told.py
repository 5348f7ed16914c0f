"""A sentence with the facts behind it, and how members, experiments, datasets and blobs are named in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from audit.verification.history import History


@dataclass(frozen=True, slots=True)
class Fact:
    """A labelled value; ``link`` leads to its page, ``code`` sets it in fixed width."""

    label: str
    value: str
    link: str | None = None
    code: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """A sentence and the facts behind it."""

    sentence: str
    facts: tuple[Fact, ...] = ()


def speaker(handle: str, history: History) -> str:
    """A member as the subject of a sentence: its organisation and role."""
    member = history.members.get(handle)
    if member is None:
        return handle
    name = organisation_name(member.organisation)
    roles = {
        "node": f"{name}'s node",
        "steward": f"{name}'s steward",
        "coordinator": "The coordinator",
        "auditor": f"Auditor {handle} of {name}",
        "researcher": f"Researcher {handle} of {name}",
    }
    return roles[member.role]


def organisation_name(slug: str) -> str:
    """An organisation's slug as a name."""
    return " ".join(part.capitalize() for part in slug.split("-"))


def experiment_fact(history: History, identity: str) -> tuple[str, Fact]:
    """An experiment's name, and the fact that leads to its page where there is one."""
    record = history.experiments.get(identity)
    name = record.terms.name if record else identity[:12]
    link = f"/experiments/{identity}" if record else None
    return name, Fact("Experiment", name, link)


def dataset_fact(name: str) -> Fact:
    """A dataset with its page."""
    return Fact("Dataset", name, f"/datasets/{name}")


def blob_fact(label: str, ref: Any) -> Fact:
    """A blob by the first digits of its hash, and its size."""
    return Fact(label, f"{ref.sha256[:12]}…, {ref.bytes:,} bytes", code=True)


Teller = Callable[[str, Any, History], Told]
"""From who speaks, the operation and the history before it to what is told."""


def day_of(at_ms: int) -> str:
    """The day of an instant, in UTC; the last day that a calendar has for what lies beyond."""
    most = datetime.max.replace(tzinfo=UTC) - datetime.fromtimestamp(0, UTC)
    since = min(at_ms // 1000, int(most / timedelta(seconds=1)) - 1)
    return datetime.fromtimestamp(since, UTC).date().isoformat()
