# %% ex-4-1
def batchnorm_backward(dout, x, gamma, eps=1e-5):
    """dout, x (N, H, W, C), gamma (C,) -> dx (N, H, W, C), dgamma (C,), dbeta (C,)"""
    axes, count = (0, 1, 2), x[..., 0].size
    s = np.sqrt(x.var(axis=axes) + eps)
    xhat = (x - x.mean(axis=axes)) / s
    dgamma, dbeta = (dout * xhat).sum(axis=axes), dout.sum(axis=axes)
    return gamma / s * (dout - dbeta / count - xhat * dgamma / count), dgamma, dbeta


# %% ex-4-2
def plus_shares(y, gamma, beta):
    """y (N, H, W, C), gamma and beta (C,) -> three numbers from 0 to 1"""
    norm = batchnorm(y, gamma, beta)
    orders = np.maximum(norm, 0), batchnorm(np.maximum(y, 0), gamma, beta), norm
    return [np.mean(order >= 0) for order in orders]  # normal y: 1, 0.345 (above 1 / sqrt(2 pi)) and 0.5


# %% ex-4-3
def pool_bits(words, size, stride):
    """words: uint64 (N, H, W, ceil(C / 64)), window size x size -> the words of the pooled map"""
    height, width = ((length - size) // stride + 1 for length in words.shape[1:3])
    out = np.zeros((len(words), height, width, words.shape[3]), np.uint64)
    for a in range(size):
        for b in range(size):  # the largest sign is +1 where any is: OR (the smallest: AND)
            out |= words[:, a : a + stride * height : stride, b : b + stride * width : stride][:, :height, :width]
    return out


# %% ex-4-4
def block_backward(dout, x, w):
    """dout, x (N, H, W, C), w (3, 3, C, C) -> dx (N, H, W, C), dw (3, 3, C, C), the gradient for alpha sign(w)"""
    body, cache = conv.xnor_conv2d_forward(x, w, padding=1)
    d = dout * (x + body > 0)
    dx, dw = conv.xnor_conv2d_backward(d, cache)
    return d + dx, dw
