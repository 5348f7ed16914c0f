"""An experiment's rounds at one site, played many times over rows that are nobody's.

The code between rows and vector is the node's own (``rounds.PreparedRound``: model, engine, clipping, grid, noise);
only the file is missing. Rows come as a recipe (``MadeUpRows``) that holds a public schema, a number and
a seed: it has no place for a path or a table, so no patient's row can be among them.

Promise: nothing here reads a file or writes one. ``Counting`` sees every draw and every declared step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ledger.entries.operations.plans import Purpose, SitePlan
from ledger.experiment.adaptive_clip import round_shapes
from ledger.experiment.plan.shape import network_of
from ledger.experiment.schema import CategoryColumn, NumberColumn, Schema
from ledger.experiment.spec import ExperimentSpec
from ledger.experiment.tensors import Shapes, pack_model
from ledger.formats.documents import encode_document
from ledger.formats.strict import canonical
from node.data.encode import Examples, examples
from node.data.holdings import RowsAsked
from node.data.intake import Array, Table
from node.training.process.frames import Job
from node.training.rounds.one_round import PreparedRound
from privacy.noise import Randomness
from privacy.selfaudit.checks import Steps

Noise = Callable[[str], Randomness]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MadeUpRows:
    """A recipe for rows that anybody can make: uniform within the bounds and codes of a public schema.

    Attributes:
        schema: public.
        rows: how many units, one row each.
        seed: of the written-down generator.
    """

    schema: Schema
    rows: int
    seed: int

    def examples(self, spec: ExperimentSpec) -> Examples:
        """Make them and encode them for an experiment; rows without a target are left out."""
        draw = np.random.default_rng(self.seed)
        columns: dict[str, Array] = {}
        for column in self.schema.columns:
            if isinstance(column, NumberColumn):
                columns[column.name] = draw.uniform(
                    float(column.low), float(column.high), self.rows
                )
            elif isinstance(column, CategoryColumn):
                codes = draw.integers(0, len(column.values), self.rows)
                columns[column.name] = codes.astype(np.int32)
        table = Table(dataset=self.schema.dataset, rows=self.rows, columns=columns, patients=None)
        return examples(table, self.schema, spec, np.ones(self.rows, dtype=bool))


@dataclass(frozen=True)
class AuditedSite:
    """One site of an experiment: what its node would be told, and nothing of its rows.

    Attributes:
        spec: with numbers where the researcher wrote ``auto``.
        schema: the dataset's public one.
        plan: the site's releases; the mechanism that is audited.
    """

    spec: ExperimentSpec
    schema: Schema
    plan: SitePlan

    @property
    def shapes(self) -> Shapes:
        """Names and shapes of a round's model: the parameters, and a clip norm that adapts."""
        return round_shapes(self.spec, network_of(self.spec, self.schema))

    def prepare(self, rows: Examples, model: Floats, noise: Noise, steps: Steps) -> PreparedRound:
        """Make ready to play training rounds over some rows.

        Args:
            rows: made up or public.
            model: of the first round, float64 [d].
            noise: opens the generators that a node would use.
            steps: counts declared steps and draws.
        """
        # Views are left out: their jitter is drawn anew in each round, and hides nobody.
        privacy = self.spec.privacy.model_copy(update={"augment": None})
        spec = self.spec.model_copy(update={"privacy": privacy})
        job = Job(
            kind="train",
            round=1,
            spec=encode_document(spec),
            schema_document=encode_document(self.schema),
            site=canonical(self.plan),
            model=pack_model(self.shapes, model),
            path="",
            sha256="0" * 64,
            split_key=bytes(32),
        )

        def declare(purpose: Purpose, count: int) -> None:
            steps.declared += count

        return PreparedRound(job, _Given(rows), lambda p: Counting(noise(p), steps), declare)


class Counting:
    """Passes draws on, and counts those of noise."""

    def __init__(self, rng: Randomness, steps: Steps) -> None:
        self._rng = rng
        self._steps = steps

    @property
    def production(self) -> bool:
        """Whether the draws are secret."""
        return self._rng.production

    def gaussian_integers(self, noise_sd: int, size: int) -> npt.NDArray[np.int64]:
        """Draw noise, and count one step."""
        self._steps.drawn += 1
        return self._rng.gaussian_integers(noise_sd, size)

    def expect(self, noise_sd: int, size: int) -> None:
        """Pass it on."""
        self._rng.expect(noise_sd, size)

    def poisson_mask(self, sampling: int, size: int) -> npt.NDArray[np.bool_]:
        """Sample patients."""
        return self._rng.poisson_mask(sampling, size)

    def below(self, bound: int) -> int:
        """Draw an integer."""
        return self._rng.below(bound)

    def close(self) -> None:
        """Drop the key."""
        self._rng.close()


class Silence:
    """No noise, and everybody taken: what an auditor who knows all rows takes away from a vector.

    Only this package opens it, over made-up rows, and says so: ``production`` is False.
    """

    production = False

    def gaussian_integers(self, noise_sd: int, size: int) -> npt.NDArray[np.int64]:
        """Give zeros."""
        return np.zeros(size, dtype=np.int64)

    def expect(self, noise_sd: int, size: int) -> None:
        """Zeros take no time."""

    def poisson_mask(self, sampling: int, size: int) -> npt.NDArray[np.bool_]:
        """Take everybody."""
        return np.ones(size, dtype=np.bool_)

    def below(self, bound: int) -> int:
        """Give 0."""
        return 0

    def close(self) -> None:
        """There is no key to drop."""


class _Given:
    """Rows in memory, where ``Holdings`` would have a file's."""

    def __init__(self, rows: Examples) -> None:
        self._rows = rows

    def halves(self, asked: RowsAsked) -> tuple[Examples, Examples]:
        return self._rows, self._rows
