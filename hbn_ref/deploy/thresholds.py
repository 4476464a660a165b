"""The threshold: BatchNorm, sign and all between them as one comparison of whole numbers.

Between two fully binary layers the trained network computes, for each channel,

    count -> alpha * count -> ReLU, max pooling -> BatchNorm: v * scale + shift -> sign -> one bit.

Each arrow is monotone in the count i, a whole number from -n to n: alpha >= 0, the ReLU and the maximum never
exchange two values, and neither does rounding; the line rises or falls with the sign of its scale (that of gamma).
So the bit as a function of i changes at most once, and all of this is one comparison with a whole number t:

    gamma > 0:  bit = (i >= t)                 the bit rises
    gamma < 0:  bit = (i <  t) = NOT (i >= t)  the bit falls: the same comparison, flipped
    gamma = 0:  bit = (shift >= 0) for all i   t = -n (always) or t = n + 1 (never)

The maximum goes before the comparison, on whole numbers. A formula, t = ceil(-shift / (scale alpha)), would be wrong
where a sum lies on the threshold up to rounding; `threshold` finds t by bisection over the very function that the
trained network evaluates, so that the bits are the same by construction. alpha is then not needed any more.
"""

import numpy as np

from .. import layers


def threshold(
    alpha: np.ndarray, scale: np.ndarray, shift: np.ndarray, n: int, relu: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Fold alpha, ReLU, BatchNorm and sign into one comparison a channel; see the top of the page.

    Parameters
    ----------
    alpha, scale, shift : float32 (C,)
    n : int
        Counts are whole numbers from -n to n.
    relu : bool
        Whether a ReLU stands between.

    Returns
    -------
    t : int64 (C,), from -n to n + 1
    flip : bool (C,)
        The bit of count i is ``(i >= t) XOR flip``.
    """
    flip = scale < 0

    def rising(i):
        v = alpha * i.astype(np.float32)
        v = np.maximum(v, np.float32(0)) if relu else v
        return (layers.scale_shift(v.reshape(1, 1, 1, -1), scale, shift).ravel() >= 0) ^ flip

    low, high = np.full(len(alpha), -n - 1), np.full(len(alpha), n + 1)  # false up to low, true from high on
    while np.any(apart := high - low > 1):
        middle = (low + high) // 2
        true = rising(middle)
        low, high = np.where(apart & ~true, middle, low), np.where(apart & true, middle, high)
    return high, flip
