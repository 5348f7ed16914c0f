"""How hospitals' updates pulled, training round by training round.

Everything is computed from updates that were released and charged already (post-processing).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from audit.reports.contribution.form import NOT_AVAILABLE, Figure
from audit.reports.contribution.shapley import RoundGame, play_round
from audit.verification.documents import UNREADABLE
from audit.verification.records import ExperimentRecord
from audit.verification.verify import Verification
from ledger.experiment.adaptive_clip import extra_values
from ledger.rules.experiments import site_of


@dataclass
class Track:
    """One site's figures, round by round."""

    rounds: list[int] = field(default_factory=list)
    shapley: list[float] = field(default_factory=list)
    leave_one_out: list[float] = field(default_factory=list)
    alignment: list[float] = field(default_factory=list)
    norm_share: list[float] = field(default_factory=list)
    noise_share: list[float] = field(default_factory=list)


def tracks_of(found: Verification, record: ExperimentRecord) -> tuple[dict[str, Track], str | None]:
    """Play every training round whose updates are here; say why some are not."""
    tracks = {name: Track() for name in record.sites}
    why_not = None if record.aggregates() else "no training round has ended in a sum yet"
    if record.plan.secure_aggregation is not None:
        return tracks, NOT_AVAILABLE
    for each, op in record.aggregates():
        if each.terms.kind != "train":
            continue
        names = sorted(each.counted())
        try:
            # The count that moves an adaptive clip norm is no part of what a hospital taught.
            taught = record.plan.parameters - extra_values(found.documents.spec(record))
            vectors = [
                found.documents.update(each.counted()[name].blob, record.plan.parameters)[:taught]
                for name in names
            ]
        except UNREADABLE as error:
            why_not = f"the updates of round {op.round} are not all in this copy ({error})"
            continue
        game = play_round(vectors)
        for place, name in enumerate(names):
            _add(tracks[name], op.round, game, place)
            tracks[name].noise_share.append(_noise_share(record, name, vectors[place]))
    return tracks, why_not


def figure_of(values: Sequence[float], missing: str) -> Figure:
    """The mean over rounds with 1.96 standard errors to each side; what is missing where there is none."""
    if not values:
        return Figure(value=None, reason=missing)
    mean = float(np.mean(values))
    if len(values) == 1:
        return Figure(value=mean, rounds=1)
    half = 1.96 * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Figure(value=mean, low=mean - half, high=mean + half, rounds=len(values))


def _add(track: Track, number: int, game: RoundGame, place: int) -> None:
    track.rounds.append(number)
    if game.shapley:
        track.shapley.append(game.shapley[place])
    track.leave_one_out.append(game.leave_one_out[place])
    track.alignment.append(game.alignment[place])
    track.norm_share.append(game.norm_share[place])


def _noise_share(record: ExperimentRecord, name: str, vector: npt.NDArray[np.int64]) -> float:
    """For one noisy sum; local steps of FedAvg scale noise in ways a log does not show."""
    site = site_of(record.plan, name)
    square = float((vector.astype(np.float64) ** 2).sum())
    if site is None or square == 0.0 or record.plan.strategy != "fedsgd":
        return math.nan
    noise = next(r.noise_sd for r in site.releases if r.purpose == "train")
    return min(1.0, float(noise) ** 2 * len(vector) / square)
