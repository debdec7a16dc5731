"""Logistic regression in which no feature counts against: pure numerics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Half the sum of squared coefficients counts this much beside the sum of log losses, as with scikit-learn's C = 1.
PENALTY = 1.0


def nonnegative_logistic(
    features: NDArray[np.float64],
    positive: NDArray[np.bool_],
    weights: NDArray[np.float64] | None = None,
    penalty: float = PENALTY,
) -> tuple[NDArray[np.float64], float]:
    """Fit log-odds = features @ coefficients + intercept with an L2 penalty and no coefficient below 0.

    Args:
        features: standardised, (N, F).
        positive: of which class each row is, (N,).
        weights: how often each row counts, (N,); None: once.
        penalty: on the coefficients, not on the intercept.

    Returns:
        Coefficients (F,), each at least 0, and the intercept.

    Example:
        >>> coefficients, _ = nonnegative_logistic(np.array([[-1.0, 1], [1, -1]]), np.array([False, True]))
        >>> coefficients.round(2).tolist()
        [0.67, 0.0]
    """
    from scipy.optimize import minimize

    y, n = np.where(positive, 1.0, -1.0), features.shape[1]
    w = np.ones(len(y)) if weights is None else weights

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        coefficients, margin = parameters[:-1], y * (features @ parameters[:-1] + parameters[-1])
        # logaddexp(0, x) is log(1 + exp(x)) without its overflow; the slope is -1 / (1 + exp(margin)), times w y.
        slope = -w * y * np.exp(-np.logaddexp(0, margin))
        value = (w * np.logaddexp(0, -margin)).sum() + penalty * coefficients @ coefficients / 2
        return float(value), np.append(features.T @ slope + penalty * coefficients, slope.sum())

    # The intercept may have any sign. Of methods with bounds and a gradient this one is SciPy's default.
    bounds = [(0, None)] * n + [(None, None)]
    fitted = minimize(loss, np.zeros(n + 1), jac=True, method="L-BFGS-B", bounds=bounds).x
    return fitted[:-1], float(fitted[-1])
