"""The privacy certificate: every figure from the ledger's mechanisms, under the four headings."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from audit.console.render import certificate_html
from audit.errors import NotInLedger, NotReleased
from audit.reports.certificate import Certificate, certificate
from audit.reports.standing import sealed_json
from audit.verification.sources import close_copies, open_copies
from audit.verification.verify import Verification, verify
from privacy.crosscheck import pld_epsilon
from privacy.curves import gaussian_epsilon
from privacy.events import FULL_BATCH, GRID, Gaussian
from tests.audit.conftest import World, write
from tests.federation import Federation


@pytest.fixture(scope="module")
def found(world: World) -> Iterator[Verification]:
    copies = open_copies(str(world.home))
    yield verify(copies[0])
    close_copies(copies)


@pytest.fixture(scope="module")
def made(found: Verification, world: World) -> Certificate:
    return certificate(found, world.experiment, now_ms=1, by="a test")


def test_its_epsilon_is_the_closed_form_of_the_mechanisms_it_lists(made: Certificate) -> None:
    for cell in made.cells:
        mu2 = sum(
            each.steps / each.noise_multiplier**2
            for each in made.mechanisms
            if each.cell == cell.cell
        )
        assert cell.epsilon == pytest.approx(gaussian_epsilon(math.sqrt(mu2), cell.delta), rel=1e-9)
        assert cell.epsilon_pld == pytest.approx(cell.epsilon, rel=1e-4)
        assert cell.mu == pytest.approx(math.sqrt(mu2))
        assert cell.renewal is None
        assert cell.lifetime_epsilon is not None
        assert cell.lifetime_limit is not None
        assert cell.epsilon <= cell.lifetime_epsilon * (1 + 1e-9) <= cell.lifetime_limit


def test_replace_one_costs_a_gaussian_release_as_twice_the_sensitivity(made: Certificate) -> None:
    for cell in made.cells:
        twice = gaussian_epsilon(2 * cell.mu, cell.delta)
        assert cell.replace_one == pytest.approx(twice, rel=1e-4)
        assert cell.replace_one is not None
        assert cell.replace_one > 2 * cell.epsilon


def test_replace_one_of_sampled_steps_is_above_zero_out() -> None:
    events = [Gaussian(GRID, 2 * GRID, 50, FULL_BATCH // 10)]
    assert pld_epsilon(events, 1e-5, replace_one=True) > pld_epsilon(events, 1e-5)


def test_a_patient_of_more_hospitals_pays_more_and_less_than_the_sum(made: Certificate) -> None:
    assert [line.hospitals for line in made.several] == [1, 2, 3]
    one, two, three = (line.epsilon for line in made.several)
    assert one == pytest.approx(max(cell.epsilon for cell in made.cells))
    assert one < two < three < 3 * one


def test_the_curve_rises_as_delta_falls(made: Certificate) -> None:
    epsilons = [point.epsilon for point in made.curve]
    assert epsilons == sorted(epsilons)
    assert all(a.delta > b.delta for a, b in zip(made.curve, made.curve[1:], strict=False))


def test_the_page_has_the_four_headings_and_says_what_is_open(made: Certificate) -> None:
    html = certificate_html(made)
    for heading in ("1 · Unit of privacy", "2 · Trust model", "3 · Parameters", "4 · Hazards"):
        assert heading in html
    assert made.model[:8] in html
    assert {hazard.state for hazard in made.hazards} == {"met", "partly", "open"}
    assert "href=" not in html.split("<main", 1)[1], "one file, nothing to load"


def test_the_json_is_sealed_and_names_its_checkpoint(made: Certificate) -> None:
    whole = json.loads(sealed_json(made))
    assert whole["report"]["header"]["standing"]["checkpoint"]
    assert whole["report"]["model"] == made.model


def test_an_experiment_that_is_not_there_is_refused_with_those_that_are(
    found: Verification,
) -> None:
    with pytest.raises(NotInLedger, match="there are: first"):
        certificate(found, "0" * 64, now_ms=1, by="a test")


def test_a_model_that_was_not_released_has_no_certificate(tmp_path: Path) -> None:
    federation = Federation.found()
    experiment = federation.start()
    world = write(federation, experiment, tmp_path)
    copies = open_copies(str(world.home))
    with pytest.raises(NotReleased, match="first has no released model"):
        certificate(verify(copies[0]), experiment, now_ms=1, by="a test")
    close_copies(copies)
