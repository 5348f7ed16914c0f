"""The residual test on noise that is made here: what it finds, and how seldom it is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from privacy.errors import InvalidParameter
from privacy.noise import TestRng
from privacy.selfaudit.checks import CHECKS, FALSE_ALARMS, Steps
from privacy.selfaudit.residuals import examine

SD = 4 * 2**20


def residuals(seed: int, *shape: int, factor: float = 1.0) -> np.ndarray:
    size = int(np.prod(shape))
    drawn = TestRng(seed).gaussian_integers(round(SD * factor), size)
    return drawn.reshape(shape) / SD


def failed(values: np.ndarray, steps: Steps | None = None) -> list[str]:
    return [one.check for one in examine(values, steps or Steps()).failed]


def test_noise_as_planned_passes_every_check() -> None:
    for seed in range(30):
        report = examine(residuals(seed, 3, 4, 256), Steps(12, 12))
        assert report.failure is None
        assert [one.check for one in report.findings] == list(CHECKS)


def test_p_values_of_honest_noise_are_not_smaller_than_they_say() -> None:
    found = [examine(residuals(seed, 2, 3, 64), Steps()).findings for seed in range(400)]
    for check in range(4):  # sigma, mean, shape, neighbours: uniform
        p = [findings[check].p for findings in found]
        assert stats.kstest(p, "uniform").pvalue > 1e-4
    for check in (4, 5):  # bounded by a union: at most so often below
        p = np.array([findings[check].p for findings in found])
        assert (p < 0.1).mean() < 0.16


@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_a_deviation_wrong_by_a_twentieth_is_found(factor: float) -> None:
    assert failed(residuals(1, 4, 9, 512, factor=factor)) == ["sigma"]


def test_two_sites_that_share_a_seed_are_found_in_one_round_whatever_their_noise_is_scaled_by() -> (
    None
):
    one = residuals(1, 1, 1, 14)
    both = np.concatenate([one * 0.7, one * 1.3])
    assert "across_sites" in failed(both)


def test_a_stream_that_is_read_later_is_still_the_same_stream() -> None:
    values = residuals(1, 2, 1, 256)
    values[1, 0, :200] = values[0, 0, 56:]
    assert failed(values) == ["across_sites"]


def test_noise_that_comes_again_in_a_later_round_is_found() -> None:
    values = residuals(1, 1, 8, 64)
    values[0, 6] = values[0, 2]
    assert failed(values) == ["across_rounds"]


def test_noise_of_another_law_is_found() -> None:
    draw = np.random.default_rng(1)
    assert "shape" in failed(draw.uniform(-(3**0.5), 3**0.5, (1, 32, 512)))


def test_a_sum_that_is_not_the_sum_is_found() -> None:
    assert "mean" in failed(residuals(1, 4, 9, 512) + 0.1)


def test_neighbours_that_depend_on_one_another_are_found() -> None:
    values = residuals(1, 1, 32, 512)
    values[:, :, 1::2] = (values[:, :, 1::2] + values[:, :, ::2]) / 2**0.5
    assert "neighbours" in failed(values)


@pytest.mark.parametrize("steps", [Steps(4, 5), Steps(5, 4), Steps(4, 4, broken=1)])
def test_one_step_more_or_less_than_declared_is_always_found(steps: Steps) -> None:
    report = examine(residuals(1, 2, 4, 64), steps)
    assert [one.check for one in report.failed] == ["steps"]
    assert report.failure is not None
    assert f"{steps.declared} declared" in report.failure


def test_the_threshold_is_shared_by_the_checks() -> None:
    finding = examine(residuals(1, 2, 4, 64), Steps()).findings[0]
    assert not finding.failed
    assert type(finding)("sigma", FALSE_ALARMS / len(CHECKS) / 2, "").failed


@pytest.mark.parametrize(
    "values", [np.zeros((2, 3)), np.zeros((1, 1, 3)), np.full((2, 2, 64), np.nan)]
)
def test_what_is_no_residual_is_refused(values: np.ndarray) -> None:
    with pytest.raises(InvalidParameter, match="residual"):
        examine(values, Steps())
