"""Chapter 2, binarize: from real numbers to signs, and what stands in for a derivative that is zero.

The sign function is flat, so its derivative says nothing. Each estimator below leaves the forward pass as it is,
``sign(x)``, and on the way back takes the derivative of another function, which its docstring names.
"""

import numpy as np

from .checks import one_of, plain_array

__all__ = [
    "ESTIMATORS",
    "RULES",
    "alpha",
    "approx_sign_backward",
    "binary_weight",
    "sign",
    "ste_backward",
    "swish_sign_backward",
    "weight_gradient",
]

RULES = ("paper", "exact")


def _floats(name, x):
    x = plain_array(name, x)
    if x.dtype.kind != "f":
        raise TypeError(f"{name}: expected floats, got {x.dtype}")
    return x


def sign(x: np.ndarray) -> np.ndarray:
    """Return the sign, which has two values: +1 where x >= 0 (so also for 0 and -0.0), -1 elsewhere.

    Raises
    ------
    ValueError
        x contains NaN.
    """
    return _sign("x", x)


def _sign(name, x):
    x = _floats(name, x)
    if np.isnan(x).any():
        raise ValueError(f"{name}: contains NaN, which has no sign")
    return np.where(x >= 0, x.dtype.type(1), x.dtype.type(-1))


def alpha(w: np.ndarray) -> np.ndarray:
    """Return the scale of each filter, ``alpha = mean |w|``.

    It minimises ``J(alpha) = ||w - alpha sign(w)||^2 = ||w||^2 - 2 alpha sum |w| + n alpha^2``: setting
    ``dJ/dalpha = -2 sum |w| + 2 n alpha`` to zero gives ``alpha = sum |w| / n`` (Rastegari et al. 2016, sec. 3.1).

    Parameters
    ----------
    w : float (..., C_out), one filter for each index of the last axis

    Returns
    -------
    alpha : (C_out,), of w's type
    """
    w = _floats("w", w)
    if w.ndim == 0 or w.size == 0:
        raise ValueError(f"w: expected filters along the last axis, got shape {w.shape}")
    flat = np.abs(w).reshape(-1, w.shape[-1])
    return flat.mean(axis=0, dtype=np.float64).astype(w.dtype)


def binary_weight(w: np.ndarray) -> np.ndarray:
    """Return ``W~ = alpha(w) sign(w)``: a binary layer computes with it in the place of w."""
    return alpha(w) * _sign("w", w)


def _alike(dout, x):
    dout, x = _floats("dout", dout), _floats("x", x)
    if dout.shape != x.shape:
        raise ValueError(f"dout: expected the shape of x, {x.shape}, got {dout.shape}")
    if dout.dtype != x.dtype:
        raise TypeError(f"dout: expected the type of x, {x.dtype}, got {dout.dtype}")
    return dout, x


def ste_backward(dout: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Straight-through estimator: ``dx = dout 1[|x| < 1]``, the derivative of clip(x, -1, 1).

    The estimator is that of Bengio et al. 2013, the window that of Hubara et al. 2016. x and dout have the same shape
    and type.
    """
    dout, x = _alike(dout, x)
    return dout * (np.abs(x) < 1)


def approx_sign_backward(dout: np.ndarray, x: np.ndarray) -> np.ndarray:
    """ApproxSign: ``dx = dout (2 - 2 |x|) 1[|x| < 1]``.

    It is the derivative of two parabolas that meet in 0: ``2x + x^2`` for -1 <= x < 0, ``2x - x^2`` for
    0 <= x < 1 (Bi-Real Net, Liu et al. 2018).
    """
    dout, x = _alike(dout, x)
    with np.errstate(over="ignore"):  # 2 |x| may overflow; the maximum is 0 all the same
        return dout * np.maximum(2 - 2 * np.abs(x), 0)


def swish_sign_backward(dout: np.ndarray, x: np.ndarray, beta: float = 5.0) -> np.ndarray:
    """SignSwish: ``dx = dout beta (2 - z tanh(z / 2)) / (1 + cosh z)`` with ``z = beta x``.

    It is the derivative of ``2 s(z) (1 + z (1 - s(z))) - 1``, s the logistic function (BNN+, Darabi et al. 2018). It
    is smooth, and slightly negative where |x| is large.
    """
    dout, x = _alike(dout, x)
    with np.errstate(over="ignore"):  # beta x may overflow, and cosh in float16: the quotient is 0 by then
        z = np.clip(beta * x, -80, 80)  # cosh overflows float32 beyond 88
        return dout * (beta * (2 - z * np.tanh(z / 2)) / (1 + np.cosh(z)))


ESTIMATORS = {"ste": ste_backward, "approx_sign": approx_sign_backward, "swish_sign": swish_sign_backward}


def weight_gradient(g: np.ndarray, w: np.ndarray, rule: str = "paper") -> np.ndarray:
    """Turn ``g = dL/dW~`` into ``dL/dW``, where ``W~ = alpha(W) sign(W)``.

    ``rule="exact"`` differentiates W~ and takes the straight-through estimator for the sign. W_i acts in two ways:
    through its own sign, and through alpha, whose derivative is ``sign(W_i) / n``:

        dL/dW_i = alpha 1[|W_i| < 1] g_i + sign(W_i)/n sum_j g_j sign(W_j).

    ``rule="paper"`` is what the training code of XNOR-Net and of the paper's authors computes:

        dL/dW_i = g_i (1/n + alpha 1[|W_i| < 1]) (1 - 1/C_in) n.

    Its constants, one by one. ``1/n`` is what is left of the second term above when only j = i is kept, as in
    XNOR-Net's equation (sign^2 = 1). ``1 - 1/C_in`` comes from centring over the input channels: W_i - mean W changes
    by 1 - 1/C_in when W_i changes by 1. ``n`` makes up for alpha and 1/n, which are small, so that SGD takes steps of
    useful size. Adam divides a constant factor out again.

    Parameters
    ----------
    g, w : float (kh, kw, C_in, C_out)
    rule : {"paper", "exact"}

    Returns
    -------
    dw : float (kh, kw, C_in, C_out)
    """
    one_of("rule", rule, RULES)
    g, w = np.ascontiguousarray(_floats("g", g)), np.ascontiguousarray(_floats("w", w))  # sums follow memory
    if g.shape != w.shape or w.ndim != 4:
        raise ValueError(f"g: expected the shape of w, (kh, kw, C_in, C_out), got g {g.shape} and w {w.shape}")
    scale = alpha(w)
    channels, n = w.shape[2], w[..., 0].size
    if channels == 1:
        raise ValueError("w: C_in = 1, where centring over the input channels erases every weight")
    window = np.abs(w) < 1
    if rule == "exact":
        signs = _sign("w", w)
        return scale * window * g + signs * ((g * signs).sum(axis=(0, 1, 2)) / w.dtype.type(n))
    return g * ((1 / n + scale * window) * ((1 - 1 / channels) * n)).astype(w.dtype)
