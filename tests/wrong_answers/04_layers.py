# %% ex-4-1 mean and deviation taken as constants
def batchnorm_backward(dout, x, gamma, eps=1e-5):
    s = np.sqrt(x.var(axis=(0, 1, 2)) + eps)
    xhat = (x - x.mean(axis=(0, 1, 2))) / s
    return dout * gamma / s, (dout * xhat).sum(axis=(0, 1, 2)), dout.sum(axis=(0, 1, 2))


# %% ex-4-1 the path through the deviation is left out
def batchnorm_backward(dout, x, gamma, eps=1e-5):
    s = np.sqrt(x.var(axis=(0, 1, 2)) + eps)
    xhat = (x - x.mean(axis=(0, 1, 2))) / s
    dx = gamma / s * (dout - dout.mean(axis=(0, 1, 2)))
    return dx, (dout * xhat).sum(axis=(0, 1, 2)), dout.sum(axis=(0, 1, 2))


# %% ex-4-2 the sign of 0 is -1
def plus_shares(y, gamma, beta):
    norm = batchnorm(y, gamma, beta)
    orders = np.maximum(norm, 0), batchnorm(np.maximum(y, 0), gamma, beta), norm
    return [np.mean(order > 0) for order in orders]


# %% ex-4-2 one mean for all channels
def plus_shares(y, gamma, beta):
    def norm(x):
        return gamma * (x - x.mean()) / x.std() + beta

    return [1.0, np.mean(norm(np.maximum(y, 0)) >= 0), np.mean(norm(y) >= 0)]


# %% ex-4-3 AND: the smallest sign
def pool_bits(words, size, stride):
    windows = np.lib.stride_tricks.sliding_window_view(words, (size, size), (1, 2))[:, ::stride, ::stride]
    return np.bitwise_and.reduce(windows, axis=(-2, -1))


# %% ex-4-3 the largest word, not the largest bit
def pool_bits(words, size, stride):
    windows = np.lib.stride_tricks.sliding_window_view(words, (size, size), (1, 2))[:, ::stride, ::stride]
    return windows.max(axis=(-2, -1))


# %% ex-4-4 no gradient through the shortcut
def block_backward(dout, x, w):
    body, cache = conv.xnor_conv2d_forward(x, w, padding=1)
    return conv.xnor_conv2d_backward(dout * (x + body > 0), cache)


# %% ex-4-4 the ReLU stops only the body
def block_backward(dout, x, w):
    body, cache = conv.xnor_conv2d_forward(x, w, padding=1)
    dx, dw = conv.xnor_conv2d_backward(dout * (x + body > 0), cache)
    return dout + dx, dw


# %% ex-4-1 + dx only
all_three = batchnorm_backward


def batchnorm_backward(dout, x, gamma, eps=1e-5):
    return all_three(dout, x, gamma, eps)[0]


# %% ex-4-1 + one element of dbeta is wrong
all_three = batchnorm_backward


def batchnorm_backward(dout, x, gamma, eps=1e-5):
    dx, dgamma, dbeta = all_three(dout, x, gamma, eps)
    dbeta[1] += 1e-3
    return dx, dgamma, dbeta


# %% ex-4-1 + eps is left out
all_three = batchnorm_backward


def batchnorm_backward(dout, x, gamma, eps=1e-5):
    return all_three(dout, x, gamma, 0.0)


# %% ex-4-1 right: x is normalised in place
def batchnorm_backward(dout, x, gamma, eps=1e-5):
    s = np.sqrt(x.var(axis=(0, 1, 2)) + eps)
    x -= x.mean(axis=(0, 1, 2))
    x /= s
    dgamma, dbeta = (dout * x).sum(axis=(0, 1, 2)), dout.sum(axis=(0, 1, 2))
    dout -= dout.mean(axis=(0, 1, 2)) + x * dgamma / x[..., 0].size
    return gamma / s * dout, dgamma, dbeta


# %% ex-4-1 right: + a list
all_three = batchnorm_backward


def batchnorm_backward(dout, x, gamma, eps=1e-5):
    return list(all_three(dout, x, gamma, eps))


# %% ex-4-2 + the first two in the wrong order
shares = plus_shares


def plus_shares(y, gamma, beta):
    first, second, third = shares(y, gamma, beta)
    return [second, first, third]


# %% ex-4-2 + one bit of 300 is counted wrongly
shares = plus_shares


def plus_shares(y, gamma, beta):
    return np.array(shares(y, gamma, beta)) - np.array([0, 0, 1 / y.size])


# %% ex-4-2 + how many, not the share
shares = plus_shares


def plus_shares(y, gamma, beta):
    return [share * y.size for share in shares(y, gamma, beta)]


# %% ex-4-2 right: + an array
shares = plus_shares


def plus_shares(y, gamma, beta):
    return np.array(shares(y, gamma, beta))


# %% ex-4-2 right: in place
def plus_shares(y, gamma, beta):
    norm = batchnorm(y, gamma, beta)
    third = (norm >= 0).mean()
    np.maximum(y, 0, out=y)
    return 1, (batchnorm(y, gamma, beta) >= 0).mean(), third


# %% ex-4-3 + bit 0 of word 0 is cleared
pooled = pool_bits


def pool_bits(words, size, stride):
    out = pooled(words, size, stride)
    out[..., 0] &= np.uint64(2**64 - 2)
    return out


# %% ex-4-3 + one bit of all is wrong
pooled = pool_bits


def pool_bits(words, size, stride):
    out = pooled(words, size, stride)
    out[0, 0, 0, 0] ^= np.uint64(1)
    return out


# %% ex-4-3 windows side by side, whatever the stride
def pool_bits(words, size, stride):
    windows = np.lib.stride_tricks.sliding_window_view(words, (size, size), (1, 2))[:, ::size, ::size]
    return np.bitwise_or.reduce(windows, axis=(-2, -1))


# %% ex-4-3 + all words are ORed, not the windows' alone
pooled = pool_bits


def pool_bits(words, size, stride):
    out = pooled(words, size, stride)
    return np.broadcast_to(np.bitwise_or.reduce(words, axis=(1, 2), keepdims=True), out.shape)


# %% ex-4-3 right: + lists
pooled = pool_bits


def pool_bits(words, size, stride):
    return pooled(words, size, stride).tolist()


# %% ex-4-3 right: in place, signed words
def pool_bits(words, size, stride):
    height, width = ((length - size) // stride + 1 for length in words.shape[1:3])
    words = words.view(np.int64)
    for a in range(size):
        rows = words[:, a : a + stride * (height - 1) + 1 : stride]
        first = rows.copy() if not a else first | rows
    for b in range(size):
        columns = first[:, :, b : b + stride * (width - 1) + 1 : stride]
        out = columns if not b else out | columns
    return out


# %% ex-4-4 + dx only
both = block_backward


def block_backward(dout, x, w):
    return both(dout, x, w)[0]


# %% ex-4-4 + one element of dw is wrong
both = block_backward


def block_backward(dout, x, w):
    dx, dw = both(dout, x, w)
    dw[2, 2, 5, 5] += 1e-4
    return dx, dw


# %% ex-4-4 the ReLU's window is that of x
def block_backward(dout, x, w):
    _, cache = conv.xnor_conv2d_forward(x, w, padding=1)
    d = dout * (x > 0)
    dx, dw = conv.xnor_conv2d_backward(d, cache)
    return d + dx, dw


# %% ex-4-4 right: + a list
both = block_backward


def block_backward(dout, x, w):
    return list(both(dout, x, w))


# %% ex-4-4 right: in place
def block_backward(dout, x, w):
    body, cache = conv.xnor_conv2d_forward(x.copy(), w, padding=1)
    x += body
    dout[x <= 0] = 0
    dx, dw = conv.xnor_conv2d_backward(dout, cache)
    dout += dx
    return dout, dw
