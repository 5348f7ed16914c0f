"""The experiment spec: what to learn, how to federate, what it costs, why.

Written once as YAML or JSON, checked here, and from then on known by the SHA-256 of its canonical
JSON: that hash is in the proposal a steward approves. Numbers with fractions are decimal strings in
the canonical form, so that one spec has one hash. A spec is data: nothing in it is ever executed.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, StringConstraints, Tag, model_validator

from ledger.entries.operations.purposes import PurposeCode
from ledger.entries.operations.values import Slug
from ledger.experiment.layer_part import LayerPart
from ledger.experiment.network_spec import LogisticRegression, Mlp, Sequential
from ledger.experiment.privacy_spec import TIGHT, Privacy
from ledger.experiment.schema import ColumnName, Label, Number
from ledger.experiment.spec_part import Fraction, Part, Plain, Rate, SpecPart, is_none
from ledger.rules.blocks import PATTERN
from privacy.masking.roster import LEAST_MEMBERS, MOST_MEMBERS, threshold

Prose = Annotated[
    str,
    StringConstraints(
        min_length=1, max_length=4000, pattern=r"^(?:[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]|\n)+$"
    ),
]
Line = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200, pattern=r"^[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+$"),
]
_EPOCH = date(1970, 1, 1)
_DAY_MS = 86_400_000
Block = Annotated[str, StringConstraints(pattern=PATTERN)]


class BinaryTask(SpecPart):
    """Two classes: the target's listed codes are positive, or its values above a threshold."""

    kind: Literal["binary"]
    target: ColumnName
    positive: Annotated[tuple[Label, ...], Field(max_length=4096)] = ()
    above: Number | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if bool(self.positive) == (self.above is not None):
            raise ValueError("give either positive (codes) or above (a threshold)")
        return self


class MulticlassTask(SpecPart):
    """One class for each listed code of the target."""

    kind: Literal["multiclass"]
    target: ColumnName
    classes: Annotated[tuple[Label, ...], Field(min_length=3, max_length=64)]


class RegressionTask(SpecPart):
    """The target's value, mapped to [-1, 1] by its declared bounds."""

    kind: Literal["regression"]
    target: ColumnName


Task = Annotated[BinaryTask | MulticlassTask | RegressionTask, Field(discriminator="kind")]


_PRESETS = {"logistic-regression": "regression", "linear-regression": "regression", "mlp": "mlp"}


def _model_kind(model: object) -> str | None:
    """The form that a written or a typed model has, or None where it is none that is known."""
    fields = (
        model if isinstance(model, dict) else dict(model) if isinstance(model, LayerPart) else {}
    )
    preset = fields.get("preset")
    if isinstance(preset, str):
        return _PRESETS.get(preset)
    target = fields.get("_target_", fields.get("target"))
    return "sequential" if target == "torch.nn.Sequential" else None


Model = Annotated[
    Annotated[LogisticRegression, Tag("regression")]
    | Annotated[Mlp, Tag("mlp")]
    | Annotated[Sequential, Tag("sequential")],
    Discriminator(
        _model_kind,
        custom_error_type="model_unknown",
        custom_error_message=(
            f"give `preset` as one of {', '.join(_PRESETS)}, "
            "or `_target_: torch.nn.Sequential` with `layers`"
        ),
    ),
]


class FedSgd(SpecPart):
    """One noisy gradient sum a round; the released model is the mean of the late rounds' models.

    Attributes:
        learning_rate: of the server's step; ``auto`` until ``recipe.resolve`` has chosen it.
        average_last: the part of the rounds whose models count.
        ema: weighs those models by an exponential moving average with this decay, instead of alike;
            absent from a canonical spec that does not choose it.
    """

    name: Literal["fedsgd"] = "fedsgd"
    learning_rate: Literal["auto"] | Rate = "auto"
    average_last: Fraction = Decimal("0.5")
    ema: Part | None = Field(default=None, exclude_if=is_none)


class FedAvg(SpecPart):
    """Local DP-SGD steps, then the average of the models weighted by declared sizes."""

    name: Literal["fedavg"]
    local_steps: Annotated[int, Field(ge=1, le=1000)] = 5
    learning_rate: Annotated[Decimal, Field(gt=0, le=1000, max_digits=12), Plain] = Decimal("0.5")
    server_learning_rate: Annotated[Decimal, Field(gt=0, le=100, max_digits=12), Plain] = Decimal(1)
    average_last: Fraction = Decimal("0.5")
    ema: Part | None = Field(default=None, exclude_if=is_none)


class SecureAggregation(SpecPart):
    """The coordinator adds up masked vectors and learns sums only.

    Attributes:
        noise: ``local``: each hospital's own noise alone keeps its promise, against everybody else.
            ``distributed``: the noises of the hospitals in a sum keep it together, so each adds less;
            against the coordinator and ``colluders`` of them.
        colluders: hospitals in a sum that may tell their noise to whoever wants to know; with
            distributed noise at least 1, since each hospital knows its own.
    """

    noise: Literal["local", "distributed"] = "local"
    colluders: Annotated[int, Field(ge=0, le=MOST_MEMBERS)] = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.noise == "distributed" and self.colluders < 1:
            raise ValueError(
                "distributed noise needs colluders: 1 or more; each hospital knows its own"
            )
        if self.noise == "local" and self.colluders:
            raise ValueError("colluders are for distributed noise; local noise holds against all")
        return self


def _masked_or_not(value: object) -> object:
    """``true`` is all defaults, ``false`` is none."""
    if value is True:
        return SecureAggregation()
    return None if value is False else value


_MASKABLE = ("fedsgd", "fedavg")
"""Strategies that need the sum of the updates and nothing of a single one."""


class Federation(SpecPart):
    """How to federate; may be filled in by another person than the model's author.

    Attributes:
        datasets: the datasets to ask for, by name.
        rounds: training rounds; ``auto`` until ``recipe.resolve`` has chosen them.
        quorum: least number of updates that make a round count.
        sampling: ``full`` batch, or the Poisson probability of each patient in a step.
        spare_rounds: rounds reserved for crashes, within the target epsilon.
        blocks: the calendar blocks of patients to learn from, each charged in every dataset that has
            it; empty for all that the datasets have.
        secure_aggregation: masks on every vector, or null for none; ``true`` is its defaults.
    """

    datasets: Annotated[tuple[Slug, ...], Field(min_length=1, max_length=1024)]
    strategy: Annotated[FedSgd | FedAvg, Field(discriminator="name")] = FedSgd()
    rounds: Literal["auto"] | Annotated[int, Field(ge=1, le=100_000)] = "auto"
    quorum: Annotated[int, Field(ge=1, le=1024)] = 1
    round_timeout_s: Annotated[int, Field(ge=1, le=30 * 24 * 3600)] = 600
    sampling: Literal["full"] | Fraction = "full"
    spare_rounds: Annotated[int, Field(ge=0, le=100)] = 1
    blocks: Annotated[tuple[Block, ...], Field(max_length=64)] = ()
    secure_aggregation: Annotated[SecureAggregation | None, BeforeValidator(_masked_or_not)] = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.datasets)) != len(self.datasets):
            raise ValueError("a dataset is listed twice")
        if len(set(self.blocks)) != len(self.blocks):
            raise ValueError("a block is listed twice")
        if self.quorum > len(self.datasets):
            raise ValueError(
                f"quorum {self.quorum} is more than the {len(self.datasets)} datasets asked for"
            )
        if self.secure_aggregation is not None:
            self._check_masks()
        return self

    def _check_masks(self) -> None:
        if not LEAST_MEMBERS <= len(self.datasets) <= MOST_MEMBERS:
            raise ValueError(
                f"secure aggregation needs {LEAST_MEMBERS} to {MOST_MEMBERS} datasets, "
                f"not {len(self.datasets)}"
            )
        if self.quorum < LEAST_MEMBERS:
            raise ValueError(
                f"secure aggregation needs a quorum of {LEAST_MEMBERS} or more, not {self.quorum}: "
                "a sum over fewer hides nobody"
            )
        if self.strategy.name not in _MASKABLE:
            raise ValueError(
                f"strategy {self.strategy.name} looks at single updates, which secure aggregation "
                f"hides; use {' or '.join(_MASKABLE)}, or leave secure_aggregation out"
            )
        if self.secure_aggregation is not None and self.secure_aggregation.noise == "distributed":
            self._check_shared_noise(self.secure_aggregation.colluders)

    def _check_shared_noise(self, colluders: int) -> None:
        sites = len(self.datasets)
        if self.strategy.name != "fedsgd" or self.sampling != "full":
            raise ValueError(
                "distributed noise needs one linear sum a round: strategy fedsgd, sampling full"
            )
        if self.quorum < threshold(sites):
            raise ValueError(
                f"distributed noise needs a quorum of {threshold(sites)} or more of {sites} datasets, "
                f"not {self.quorum}: the least that a masked sum has"
            )
        if colluders > sites // 3 or self.quorum - colluders < 2:
            raise ValueError(
                f"{colluders} colluders are too many: at most a third of {sites} datasets, and a "
                f"quorum of {self.quorum} must leave 2 honest ones"
            )


class ExperimentSpec(SpecPart):
    """One experiment, as its researcher describes it and as stewards read it."""

    consilium: Literal[1]
    name: Slug
    title: Line
    purpose: Prose
    purpose_code: Annotated[PurposeCode, Field(exclude_if=lambda code: code == "research")] = (
        "research"
    )
    lawful_basis: Line
    until: date
    task: Task
    features: Annotated[tuple[ColumnName, ...], Field(min_length=1, max_length=1024)]
    model: Model
    federation: Federation
    privacy: Privacy
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.features)) != len(self.features):
            raise ValueError("a feature is listed twice")
        if self.task.target in self.features:
            raise ValueError(f"the target {self.task.target} is also a feature")
        if self.privacy.adaptive is not None and self.federation.strategy.name != "fedsgd":
            raise ValueError(
                "adaptive clipping needs strategy fedsgd: its norm follows from the sums of the rounds, "
                "and local steps have none"
            )
        return self

    @property
    def until_ms(self) -> int:
        """The last millisecond of ``until``, UTC, as POSIX milliseconds."""
        return (self.until.toordinal() - _EPOCH.toordinal() + 1) * _DAY_MS - 1

    @property
    def outputs(self) -> int:
        """Number of model outputs: 1, or the number of classes."""
        return len(self.task.classes) if isinstance(self.task, MulticlassTask) else 1

    @property
    def auto(self) -> tuple[str, ...]:
        """The fields that are still ``auto``; none in a spec that is proposed."""
        written = {
            "federation.strategy.learning_rate": self.federation.strategy.learning_rate,
            "federation.rounds": self.federation.rounds,
        }
        return tuple(name for name, value in written.items() if value == "auto")

    @property
    def rounds(self) -> int:
        """Training rounds.

        Raises:
            ValueError: they are still ``auto``.
        """
        if self.federation.rounds == "auto":
            raise ValueError("federation.rounds is still auto: resolve the spec first")
        return self.federation.rounds

    @property
    def learning_rate(self) -> Decimal:
        """The strategy's learning rate.

        Raises:
            ValueError: it is still ``auto``.
        """
        rate = self.federation.strategy.learning_rate
        if rate == "auto":
            raise ValueError("the learning rate is still auto: resolve the spec first")
        return rate

    @property
    def clip_norm(self) -> Decimal:
        """The L2 bound on one patient's gradient.

        Raises:
            ValueError: it is still ``auto``, and so is the learning rate.
        """
        norm = self.privacy.clip_norm
        if norm != "auto":
            return norm
        if self.federation.strategy.learning_rate == "auto":
            raise ValueError("privacy.clip_norm is still auto: resolve the spec first")
        return TIGHT
