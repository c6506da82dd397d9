from __future__ import annotations

import pytest

from medxpertqa.reproduce.claims import CLAIMS
from medxpertqa.reproduce.experiment import EXPERIMENT, ExperimentConfig
from tenfold.configs import load_config


@pytest.mark.parametrize("scale", ["quick", "laptop"])
def test_a_scale_is_a_config_of_the_experiment(scale: str) -> None:
    assert isinstance(load_config(EXPERIMENT, scale), ExperimentConfig)


def test_every_claim_has_its_own_id() -> None:
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
