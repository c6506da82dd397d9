from __future__ import annotations

import pytest

from altermag import Monolayer, prototypes


@pytest.fixture(scope="session")
def ptbr3() -> Monolayer:
    return prototypes.ptbr3()
