from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from new_paper import NewPaperError, Steps, descend, gradient_descent, heavy_ball

README = Path(__file__).parents[1] / "README.md"


def test_two_updates_by_hand() -> None:
    # f = x², x0 = 1, α = 0.1, β = 0.5: x1 = 1 - 0.2 = 0.8; x2 = 0.8 - 0.16 + 0.5 (0.8 - 1) = 0.54.
    path = descend(lambda x: 2 * x, np.array([1.0]), Steps(0.1, 0.5, 0.0), count=2)
    assert path.ravel() == pytest.approx([1.0, 0.8, 0.54])


def test_best_steps_in_closed_form() -> None:
    assert gradient_descent(1, 9).contraction == pytest.approx(8 / 10)
    assert heavy_ball(1, 9).contraction == pytest.approx(2 / 4)  # (√9 - 1)/(√9 + 1)
    assert heavy_ball(1, 9).momentum == pytest.approx(1 / 4)


def test_gradient_descent_contracts_exactly_along_the_extreme_directions() -> None:
    curvature = np.array([1.0, 9.0])
    path = descend(lambda x: curvature * x, np.ones(2), gradient_descent(1, 9), count=10)
    assert np.abs(path[10]) == pytest.approx([0.8**10, 0.8**10])


@pytest.mark.parametrize(("mu", "lipschitz"), [(0.0, 1.0), (2.0, 1.0), (-1.0, 1.0)])
def test_impossible_curvature_is_named(mu: float, lipschitz: float) -> None:
    with pytest.raises(NewPaperError, match=re.escape(f"mu={mu} to lipschitz={lipschitz}")):
        heavy_ball(mu, lipschitz)


def test_the_example_of_the_readme_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    scope: dict[str, np.ndarray] = {}
    exec(example, scope)
    assert np.abs(scope["path"][-1]).max() < 1e-4
