"""From outcome rewards to probabilities that a threshold can be set on: a temperature, an offset a prompt.

An outcome reward h carries an offset that depends on its prompt (section 2.1), so one threshold on h does not
suit all prompts. With m the mean of h over the responses of the same prompt, which needs no labels,

    logit P(correct) = slope * (h - m) + prompt_slope * m + bias = (h - offset(m)) / temperature

temperature = 1 / slope and offset(m) = m - temperature * (prompt_slope * m + bias). prompt_slope = slope is
the plain calibration of h, without an offset a prompt; with 0 only differences within a prompt count. The
labelled responses decide.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from implicit_prm.errors import ImplicitPRMError, ImplicitPRMWarning

Floats = npt.NDArray[np.float64]

# Of the penalty on the squares of the weights, per response: finite weights even where h separates perfectly.
_RIDGE = 1e-4
_ITERATIONS = 100


@dataclass(frozen=True)
class Calibration:
    """What `fit_calibration` found; the equation is above."""

    slope: float
    prompt_slope: float
    bias: float

    @property
    def temperature(self) -> float:
        """1 / slope, in units of h; infinite where h says nothing within a prompt."""
        return 1 / self.slope if self.slope else np.inf

    def offset(self, prompt_mean: npt.ArrayLike) -> Floats:
        """The h at which a response is as likely right as wrong, given its prompt's mean h; same shape."""
        m = np.asarray(prompt_mean, dtype=np.float64)
        return m - (self.prompt_slope * m + self.bias) / self.slope

    def probabilities(self, outcomes: npt.ArrayLike, prompts: Sequence[Hashable]) -> Floats:
        """P(correct) of responses with outcome rewards [N], given an id of each one's prompt [N]: [N].

        Use as many responses a prompt as in fitting: their mean is an input.
        Raises `ImplicitPRMError` for another number of prompts and a reward that is not finite.
        """
        h, m = _with_means(outcomes, prompts)
        return _logistic(self.slope * (h - m) + self.prompt_slope * m + self.bias)


def fit_calibration(
    outcomes: npt.ArrayLike, labels: npt.ArrayLike, prompts: Sequence[Hashable]
) -> Calibration:
    """Fit the three numbers to labelled responses by maximum likelihood (logistic regression).

    outcomes [N]: h; labels [N] in [0, 1]; prompts [N]: an id of each response's prompt. With one response a
    prompt h - m is 0, and the plain calibration of h is fitted. Fit on other prompts than you apply it to.

    Raises `ImplicitPRMError` for other lengths, values that are not finite, labels outside [0, 1] or all the
    same. Warns (`ImplicitPRMWarning`) if within a prompt right responses do not have the higher rewards.
    """
    h, m = _with_means(outcomes, prompts)
    label = _checked_labels(labels, len(h))
    one_each = len(set(prompts)) == len(h)
    features = np.stack([m] if one_each else [h - m, m], axis=1)
    *slopes, bias = _logistic_regression(features, label)
    if slopes[0] <= 0:
        warnings.warn(
            f"right responses do not have the higher rewards (slope {slopes[0]:.3g}); "
            "a threshold on them would select wrong ones",
            ImplicitPRMWarning,
            stacklevel=2,
        )
    return Calibration(slopes[0], slopes[-1], bias)


def calibration_error(probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int = 10) -> float:
    """The expected calibration error: |mean label - mean probability| of equally wide bins, by their sizes.

    `probabilities` and `labels` are [N]. Raises `ImplicitPRMError` for other lengths, and for values outside
    [0, 1].
    """
    p = np.asarray(probabilities, dtype=np.float64)
    label = _checked(labels, len(p), "label")
    p = _checked(p, len(label), "probability")
    bin_of = np.minimum((p * bins).astype(np.int64), bins - 1)
    return float(np.abs(np.bincount(bin_of, label - p, minlength=bins)).sum() / len(p))


def _with_means(outcomes: npt.ArrayLike, prompts: Sequence[Hashable]) -> tuple[Floats, Floats]:
    """h [N], and of each response the mean of its prompt [N]."""
    h = np.asarray(outcomes, dtype=np.float64)
    if h.shape != (len(prompts),) or not h.size:
        raise ImplicitPRMError(
            f"outcome rewards of shape {h.shape} and {len(prompts)} prompts; give one of each"
        )
    if not np.isfinite(h).all():
        raise ImplicitPRMError(f"the outcome reward of response {int(np.isfinite(h).argmin())} is not finite")
    numbers: dict[Hashable, int] = {}
    prompt = np.array([numbers.setdefault(name, len(numbers)) for name in prompts])
    return h, (np.bincount(prompt, h) / np.bincount(prompt))[prompt]


def _checked(values: npt.ArrayLike, n: int, name: str) -> Floats:
    found = np.asarray(values, dtype=np.float64)
    if found.shape != (n,) or not n:
        raise ImplicitPRMError(f"there are {n} responses and values ({name}) of shape {found.shape}")
    fit = (found >= 0) & (found <= 1)
    if not fit.all():
        place = int(fit.argmin())
        raise ImplicitPRMError(f"the {name} of response {place} is {found[place]}; it must be in [0, 1]")
    return found


def _checked_labels(labels: npt.ArrayLike, n: int) -> Floats:
    label = _checked(labels, n, "label")
    if label.min() == label.max():
        raise ImplicitPRMError(f"all labels are {label[0]:g}; calibration needs right and wrong responses")
    return label


def _logistic(x: Floats) -> Floats:
    return np.exp(-np.logaddexp(0, -x))


def _logistic_regression(features: Floats, labels: Floats) -> list[float]:
    """The weights of the features [N, F], and the bias, by Newton's method with halved steps."""
    spread = features.std(axis=0)
    spread[spread == 0] = 1.0
    x = np.hstack([features / spread, np.ones((len(features), 1))])
    penalty = _RIDGE * len(x) * np.array([1.0] * len(spread) + [0.0])

    def loss(w: Floats) -> float:
        logits = x @ w
        return float((np.logaddexp(0, logits) - labels * logits).sum() + penalty @ w**2 / 2)

    w = np.zeros(x.shape[1])
    for _ in range(_ITERATIONS):
        p = _logistic(x @ w)
        gradient = x.T @ (p - labels) + penalty * w
        hessian = (x * (p * (1 - p))[:, None]).T @ x + np.diag(penalty)
        step = np.linalg.solve(hessian + 1e-12 * len(x) * np.eye(len(w)), gradient)
        size = 1.0
        while loss(w - size * step) > loss(w) and size > 1e-9:
            size /= 2
        w = w - size * step
        if np.abs(step).max() < 1e-10:
            break
    return [*(w[:-1] / spread).tolist(), float(w[-1])]
