"""Hospitals that train together in one process, with the product's parts for everything that counts.

The plan and its noise (``compile_plan``), settings (``recipe``), clipped sums (``DenseSum``, the fast engine), noise
(``SecureRandom``, ``share_sd``), the exact sum, the server's step and the final model are the product's.
What is left out: processes, network, ledger, masks (they cancel in the sum) and metrics' histograms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.utility.exact import CountingSum
from ledger.entries.operations.datasets import CellLimit, CellRegistered, CellUse, DatasetRegistered
from ledger.entries.operations.plans import Plan
from ledger.entries.operations.values import BlobRef
from ledger.experiment.average import ExactSum, final_model, initial_model, server_step
from ledger.experiment.network_spec import parameter_count
from ledger.experiment.noise_shares import share_sd
from ledger.experiment.plan.compilation import compile_plan
from ledger.experiment.plan.shape import network_of
from ledger.experiment.plan.sites import Site, rows_each, site_limits
from ledger.experiment.recipe import HOUSE, Recipe, recipe, resolve, signal
from ledger.experiment.schema import Schema
from ledger.experiment.spec import ExperimentSpec
from node.data.encode import Examples
from node.training.networks.modules import build, load_flat
from node.training.rounds.augment import number_inputs, with_views
from node.training.sums.dense import DenseSum
from node.training.sums.layerwise import LayerwiseSum
from privacy.calibrate import epsilon_of
from privacy.crosscheck import pld_epsilon
from privacy.curves import mu2_max
from privacy.events import Gaussian
from privacy.filters import limit_for
from privacy.masking.roster import MOST_MEMBERS, threshold
from privacy.noise import SecureRandom

FloatMatrix = npt.NDArray[np.float64]
NO_BLOB = BlobRef(sha256="0" * 64, bytes=1)
LONGEST = recipe(math.inf)
"""What the recipe says where there is no noise at all."""


@dataclass(frozen=True, eq=False)
class Rows:
    """All hospitals' encoded rows, one after another.

    Attributes:
        features: float32 [n, d].
        targets: float32 [n], 0 or 1.
        units: int64 [n], the patient of each row, 0 .. m-1.
        sites: int64 [m], the hospital of each patient, 0 .. h-1.
        names: of the hospitals.
        declared: nominal patients of each.
        test_percent: share of patients kept for evaluation.
        schema: of all of them; its name and size are replaced for each.
        spec: what to learn, as a mapping; federation and privacy are filled in here.
        reference: float64 [n], someone else's published prediction of the target, or None.
    """

    features: npt.NDArray[np.float32]
    targets: npt.NDArray[np.float32]
    units: npt.NDArray[np.int64]
    sites: npt.NDArray[np.int64]
    names: tuple[str, ...]
    declared: tuple[int, ...]
    test_percent: int
    schema: dict[str, object]
    spec: dict[str, object]
    reference: FloatMatrix | None = None


@dataclass(frozen=True)
class Setting:
    """One line of the result.

    Attributes:
        epsilon: target, or None for no privacy at all.
        delta: lifetime delta of each cell.
        shared: noise divided over the honest hospitals of a masked sum, instead of each its own.
        recipe: ``auto``, ``house`` for 20 rounds at a rate of 2, or any other settings.
        privacy: further fields of the spec's privacy part.
        strategy: and of its strategy.
        one_process: all hospitals' rows in one clipped sum, for more hospitals than masks take.
    """

    epsilon: float | None
    delta: float
    shared: bool = False
    recipe: str | Recipe = "auto"
    one_process: bool = False
    privacy: Mapping[str, object] = field(default_factory=dict)
    strategy: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Federation:
    """A plan that is ready to run.

    Attributes:
        spec: with numbers.
        plan: of these sites.
        honest, colluders: hospitals that keep, and that may tell, their noise; 1 and 0 with local noise.
        noise_sd: what each hospital adds to a sum, grid units, 0 without privacy.
        signal: what the recipe was asked with.
    """

    spec: ExperimentSpec
    plan: Plan
    sites: tuple[Site, ...]
    honest: int
    colluders: int
    noise_sd: tuple[int, ...]
    signal: float


def assemble(rows: Rows, setting: Setting) -> Federation:
    """Register the hospitals on paper, choose settings, and compile the plan.

    Raises:
        PlanRefused: as for a researcher.
    """
    sites = tuple(
        _site(rows, index, setting.epsilon or 1.0, setting.delta)
        for index in range(len(rows.names))
    )
    least = threshold(len(sites))
    colluders = len(sites) - least if setting.shared else 0
    honest = least - colluders if setting.shared else 1
    maskable = setting.shared and len(sites) <= MOST_MEMBERS
    asked = _spec(rows, setting, least if maskable else 1, colluders if maskable else 0)
    spec, strength = _settings(asked, sites, setting, honest)
    plan = compile_plan(spec, sites, NO_BLOB)
    noises = [next(r.noise_sd for r in s.releases if r.purpose == "train") for s in plan.sites]
    if setting.shared:
        noises = [share_sd(max(noises), honest)] * len(noises)
    if setting.epsilon is None:
        noises = [0] * len(noises)
    return Federation(spec, plan, sites, honest, colluders, tuple(noises), strength)


def train(
    rows: Rows, federation: Federation, held_out: npt.NDArray[np.bool_], one: bool
) -> FloatMatrix:
    """Run the plan once on the patients that are not held out; returns the model, float64 [d + 1]."""
    spec, plan = federation.spec, federation.plan
    engines = _engines(rows, federation, ~held_out, one)
    sensitivity = plan.sites[0].releases[0].sensitivity
    tree = network_of(spec, federation.sites[0].schema)
    model = initial_model(spec, tree)
    divisor = sum(site.divisor for site in plan.sites)
    rng = SecureRandom()
    iterates = []
    for number in range(plan.rounds):
        if number and spec.privacy.augment is not None:  # fresh jitter
            engines = _engines(rows, federation, ~held_out, one)
        total = ExactSum(plan.parameters)
        for engine in engines:
            engine.load(model)
            total.add(engine.clipped_sum(None, sensitivity))
        for noise in _noises(rng, federation.noise_sd, plan.parameters):
            total.add(noise)
        model = server_step(spec, model, total.total(), divisor)
        iterates.append(model)
    rng.close()
    return final_model(spec, iterates)


def scores(rows: Rows, model: FloatMatrix) -> FloatMatrix:
    """Logits of all rows, of a linear model."""
    return rows.features.astype(np.float64) @ model[:-1] + model[-1]


def network_scores(rows: Rows, federation: Federation, model: FloatMatrix) -> FloatMatrix:
    """Logits of all rows, of any model."""
    network = build(network_of(federation.spec, federation.sites[0].schema))
    load_flat(network, model)
    with torch.no_grad():
        logits: FloatMatrix = network(torch.from_numpy(rows.features))[:, 0].double().numpy()
    return logits


def recomputed(federation: Federation, setting: Setting) -> dict[str, float] | None:
    """The greatest epsilon of any hospital's training, by the lanes' closed form and by PLD."""
    if setting.epsilon is None:
        return None
    closed, pld = 0.0, 0.0
    seen: dict[int, float] = {}
    for site, terms in zip(federation.plan.sites, federation.sites, strict=True):
        (release,) = [r for r in site.releases if r.purpose == "train"]
        (charge,) = release.charges
        order = terms.cells[charge.cell].limit.order_centi
        closed = max(closed, epsilon_of(
            charge.g * release.steps, charge.r * release.steps, order, setting.delta
        ))  # fmt: skip
        if release.noise_sd not in seen:
            event = Gaussian(release.sensitivity, release.noise_sd, release.steps, release.sampling)
            seen[release.noise_sd] = pld_epsilon([event], setting.delta)
        pld = max(pld, seen[release.noise_sd])
    return {"closed_form": closed, "pld": pld}


def _site(rows: Rows, index: int, epsilon: float, delta: float) -> Site:
    """A registration with one cell for training and one for evaluation, as with patient ids."""
    name, declared = rows.names[index], rows.declared[index]
    schema = Schema.model_validate(
        rows.schema
        | {"dataset": name, "declared_rows": declared, "test_percent": rows.test_percent}
    )
    limit = limit_for(epsilon, delta)
    cells = [
        CellRegistered(
            type="cell.registered",
            cell=f"{name}-{half}",
            block="all",
            half=half,
            declared_patients=declared,
            epsilon_micro=round(epsilon * 10**6),
            delta_e15=round(delta * 10**15),
            limit=CellLimit(g_max=limit.g_max, r_max=limit.r_max, order_centi=limit.order_centi),
        )
        for half in ("train", "test")
    ]
    terms = DatasetRegistered(
        type="dataset.registered",
        dataset=name,
        schema_=NO_BLOB,
        unit="patient",
        declared_train=schema.declared_train,
        declared_test=schema.declared_test,
        cells=tuple(CellUse(cell=c.cell, use=c.half) for c in cells),
        snapshot="0" * 64,
        card=None,
    )
    return Site("0" * 64, terms, {c.cell: c for c in cells}, schema)


def _spec(rows: Rows, setting: Setting, quorum: int, colluders: int) -> ExperimentSpec:
    federation: dict[str, object] = {"datasets": rows.names, "quorum": quorum}
    if colluders:
        masks = {"noise": "distributed", "colluders": colluders}
        federation |= {"secure_aggregation": masks}
    epsilon = str(setting.epsilon or 1)
    privacy = {"epsilon": epsilon, "metrics": None, "engine": "fast", **setting.privacy}
    if not isinstance(privacy.get("clipping", "flat"), str):
        privacy["engine"] = "exact"
    if setting.strategy:
        federation["strategy"] = {"name": "fedsgd", **setting.strategy}
    return ExperimentSpec.model_validate(rows.spec | {"federation": federation, "privacy": privacy})


def _settings(
    asked: ExperimentSpec, sites: Sequence[Site], setting: Setting, honest: int
) -> tuple[ExperimentSpec, float]:
    """Resolve ``auto``: by the product's own call, but where no spec can say what is simulated."""
    parameters = parameter_count(network_of(asked, sites[0].schema))
    sizes = [site.terms.declared_train for site in sites]
    mu2 = [mu2_max(setting.epsilon or 1.0, setting.delta / 2)] * len(sites)
    strength = math.inf if setting.epsilon is None else signal(sizes, mu2, parameters, honest)
    if isinstance(setting.recipe, Recipe):
        return with_recipe(asked, setting.recipe), strength
    if setting.recipe == "house":
        return with_recipe(asked, HOUSE), strength
    if setting.epsilon is not None and not setting.one_process:
        return resolve(asked, sites), strength
    return with_recipe(asked, recipe(strength)), strength


def with_recipe(spec: ExperimentSpec, chosen: Recipe) -> ExperimentSpec:
    """The spec at these settings."""
    strategy = spec.federation.strategy.model_copy(
        update={"learning_rate": Decimal(chosen.learning_rate)}
    )
    federation = spec.federation.model_copy(update={"rounds": chosen.rounds, "strategy": strategy})
    privacy = spec.privacy.model_copy(update={"clip_norm": chosen.clip_norm})
    return spec.model_copy(update={"federation": federation, "privacy": privacy})


def _engines(
    rows: Rows, federation: Federation, kept: npt.NDArray[np.bool_], one: bool
) -> list[DenseSum | CountingSum]:
    tree = network_of(federation.spec, federation.sites[0].schema)
    groups: list[npt.NDArray[np.bool_]] = (
        [kept] if one else [kept & (rows.sites == index) for index in range(len(rows.names))]
    )
    engines: list[DenseSum | CountingSum] = []
    for index, group in enumerate(groups):
        taken = group[rows.units]
        if not taken.any():
            continue
        _, patients = np.unique(rows.units[taken], return_inverse=True)
        order = np.argsort(patients, kind="stable")
        examples = Examples(
            rows.features[taken][order],
            rows.targets[taken][order],
            patients[order].astype(np.int64),
            int(group.sum()),
        )
        site = federation.sites[index]
        views = federation.spec.privacy.augment
        if views is not None:
            numbers = number_inputs(site.schema, federation.spec.features)
            with SecureRandom() as rng:
                examples = with_views(examples, numbers, views, rng)
        limits = site_limits(
            site.terms.declared_train, site.schema.declared_rows, rows_each(site.schema)
        )
        most = max(len(examples.targets), examples.units)
        limits = replace(limits, patients=max(limits.patients, most), rows=max(limits.rows, most))
        task, privacy = federation.spec.task, federation.spec.privacy
        if privacy.adaptive is not None:
            engines.append(CountingSum(tree, task, examples, privacy.adaptive.share))
        elif privacy.clipping == "per_layer":
            engines.append(LayerwiseSum(tree, task, examples, limits))
        else:
            engines.append(DenseSum(tree, task, examples, limits))
    return engines


def _noises(
    rng: SecureRandom, deviations: Sequence[int], parameters: int
) -> list[npt.NDArray[np.int64]]:
    """Each hospital's noise, int64 [parameters]; none where the deviation is 0."""
    if not any(deviations):
        return []
    if len(set(deviations)) == 1:
        drawn = rng.gaussian_integers(deviations[0], parameters * len(deviations))
        return list(drawn.reshape(len(deviations), parameters))
    return [rng.gaussian_integers(noise, parameters) for noise in deviations]
