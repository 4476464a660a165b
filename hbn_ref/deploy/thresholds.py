"""The threshold: all that stands between two binary convolutions is one comparison of whole numbers.

Between two fully binary layers the trained network computes, for each channel,

    count -> alpha * count -> ReLU, max pooling -> BatchNorm: v * scale + shift -> sign -> one bit.

The count i is a whole number from -n to n, and each arrow is monotone in it. alpha is not negative; ReLU, maximum and
rounding never exchange two values; the line of BatchNorm rises or falls with the sign of its scale, which is that of
gamma. So the bit changes at most once as i grows, and all of this is one comparison with a whole number t:

    gamma > 0:  bit = (i >= t)                 the bit rises
    gamma < 0:  bit = (i <  t) = NOT (i >= t)  the bit falls: the same comparison, flipped
    gamma = 0:  bit = (shift >= 0) for all i   t = -n (always) or t = n + 1 (never)

The maximum is taken before the comparison, of whole numbers. The formula t = ceil(-shift / (scale alpha)) would be
wrong where rounding decides. So `threshold` finds t by bisection, with the very function that the trained network
evaluates: the bits are the same by construction. After that alpha is not needed any more.
"""

import numpy as np

from .. import layers


def threshold(
    alpha: np.ndarray, scale: np.ndarray, shift: np.ndarray, n: int, relu: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Fold alpha, ReLU, BatchNorm and sign into one comparison per channel; see the top of the page.

    Parameters
    ----------
    alpha, scale, shift : float32 (C,)
    n : int
        Counts are whole numbers from -n to n.
    relu : bool
        Whether there is a ReLU.

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
