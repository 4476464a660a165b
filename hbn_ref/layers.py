"""Chapter 4, layers: what stands between convolutions, and the objects that hold state.

The first half of this page is plain functions: forward returns ``(out, cache)``, backward takes ``(dout, cache)``.
The second half wraps them, and the convolutions of chapter 3, in thin objects with `forward`, `backward` and
named parameters. There is no automatic differentiation: a container calls its layers' backward in reverse.

Everything is channels-last, (N, H, W, C). Block order, as in the paper (section 3):
real or binary-weight layers ``conv -> BatchNorm -> ReLU``, fully binary ones ``BatchNorm -> sign -> conv -> ReLU``.
BatchNorm before the sign centres the inputs: after a ReLU alone every sign would be +1.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from . import binarize, conv, engine, kernels
from .checks import IntOrPair, float_array, floats, one_of, pair, real_number, same_shape

EPS = 1e-5  # added to the variance in BatchNorm
MOMENTUM = 0.1  # weight of the newest batch in BatchNorm's running statistics


# ---------------------------------------------------------------------------------------------- BatchNorm


def _blocks(kernel, x, *args):
    """Sum a pair of channel sums over fixed blocks of rows, so that the result is the same for any thread count."""
    count = -(-len(x) // kernels.BLOCK)
    sums = np.zeros((count, 2, x.shape[1]))
    engine.run(kernel, count, x, *args, sums, work=x.size)
    return sums.sum(axis=0)


def batchnorm_forward(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, *, eps: float = EPS
) -> tuple[np.ndarray, Any]:
    """BatchNorm with the batch's own statistics (training).

        out = gamma * xhat + beta,  xhat = (x - mean) / sqrt(var + eps),  mean and var over all but the channels

    Parameters
    ----------
    x : float (N, H, W, C)
    gamma, beta : float (C,)

    Returns
    -------
    out : (N, H, W, C)
    cache : for `batchnorm_backward`; its last two entries are the batch's mean and (biased) variance, float64 (C,)
    """
    x = float_array("x", x, 4)
    rows = x.reshape(-1, x.shape[-1])
    total, squares = _blocks(kernels.channel_sums, rows)
    mean = total / len(rows)
    var = np.maximum(squares / len(rows) - mean * mean, 0)
    return batchnorm_inference(x, gamma, beta, mean, var, eps=eps), (x, gamma, eps, mean, var)


def fold_batchnorm(
    gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, var: np.ndarray, *, eps: float = EPS,
    dtype: DTypeLike = np.float32,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return (scale, shift), (C,) each: BatchNorm with given statistics is ``x * scale + shift``."""
    scale = gamma / np.sqrt(np.asarray(var, np.float64) + eps)
    return scale.astype(dtype), (beta - mean * scale).astype(dtype)


def scale_shift(x: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """``x * scale + shift``, x (N, H, W, C)."""
    x = float_array("x", x, 4)
    same_shape("scale", scale, x.shape[3:])
    same_shape("shift", shift, x.shape[3:])
    out = np.empty(x.shape, x.dtype)
    rows = x.reshape(-1, x.shape[-1])
    engine.run(kernels.scale_shift, len(rows), rows, scale, shift, out.reshape(rows.shape), work=x.size)
    return out


def batchnorm_inference(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, var: np.ndarray, *, eps: float = EPS
) -> np.ndarray:
    """BatchNorm with given statistics: one multiplication and one addition a value."""
    x = float_array("x", x, 4)
    for name, value in (("gamma", gamma), ("beta", beta), ("mean", mean), ("var", var)):
        same_shape(name, value, np.shape(x)[3:])
    return scale_shift(x, *fold_batchnorm(gamma, beta, mean, var, eps=eps, dtype=x.dtype))


def batchnorm_backward(
    dout: np.ndarray, cache: Any, in_place: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of `batchnorm_forward`; ``in_place`` overwrites dout with dx.

    With M = N H W values a channel and inv = 1 / sqrt(var + eps), mean and var depend on every x, which gives

        dbeta = sum dout,   dgamma = sum dout xhat,
        dx = gamma inv (dout - dbeta / M - xhat dgamma / M).

    Returns
    -------
    dx : (N, H, W, C)
    dgamma, dbeta : (C,)
    """
    x, gamma, eps, mean, var = cache
    dout = floats("dout", dout, x.dtype)
    same_shape("dout", dout, x.shape)
    rows = x.reshape(-1, x.shape[-1])
    d = dout.reshape(rows.shape)
    inv = 1 / np.sqrt(var + eps)
    dbeta, centred = _blocks(kernels.batchnorm_sums, rows, d, mean)
    dgamma = centred * inv
    a = gamma * inv  # dx = a dout + b x + c, with xhat = (x - mean) inv written out
    b = -a * inv * dgamma / len(rows)
    c = -a * dbeta / len(rows) - b * mean
    dx = dout if in_place and dout.flags.writeable else np.empty(x.shape, x.dtype)
    engine.run(
        kernels.batchnorm_dx, len(rows), rows, d, *(v.astype(x.dtype) for v in (a, b, c)), dx.reshape(rows.shape),
        work=x.size,
    )  # fmt: skip
    return dx, dgamma.astype(x.dtype), dbeta.astype(x.dtype)


# ---------------------------------------------------------------------------------- ReLU, PReLU, dropout


def relu_forward(x: np.ndarray, in_place: bool = False) -> tuple[np.ndarray, Any]:
    """``out = max(x, 0)``; the cache holds one bit a value. ``in_place`` overwrites x, which saves a map of memory."""
    x = floats("x", x)
    out = x if in_place and x.flags.writeable else np.empty(x.shape, x.dtype)
    words = np.empty(-(-x.size // 64), np.uint64)
    engine.run(kernels.relu, words.size, x.reshape(-1), out.reshape(-1), words, work=x.size)
    return out, (words, x.shape, x.dtype)


def relu_backward(dout: np.ndarray, cache: Any, in_place: bool = False) -> np.ndarray:
    """``dx = dout 1[x > 0]``. ``in_place`` overwrites dout."""
    words, shape, dtype = cache
    dout = floats("dout", dout, dtype)
    same_shape("dout", dout, shape)
    dx = dout if in_place and dout.flags.writeable else np.empty(shape, dtype)
    engine.run(kernels.relu_dx, words.size, words, dout.reshape(-1), dx.reshape(-1), work=dx.size)
    return dx


def prelu_forward(x: np.ndarray, slope: np.ndarray) -> tuple[np.ndarray, Any]:
    """``out = x where x > 0, slope x elsewhere``; one learned slope a channel (He et al. 2015)."""
    x = floats("x", x)
    same_shape("slope", slope, x.shape[-1:])
    return np.where(x > 0, x, slope * x), (x, slope)


def prelu_backward(dout: np.ndarray, cache: Any) -> tuple[np.ndarray, np.ndarray]:
    """Gradients (dx, dslope) of `prelu_forward`."""
    x, slope = cache
    dout = floats("dout", dout)
    same_shape("dout", dout, x.shape)
    negative = x <= 0
    dslope = (dout * x * negative).reshape(-1, x.shape[-1]).sum(axis=0)
    return np.where(negative, slope * dout, dout), dslope


def dropout_forward(
    x: np.ndarray, rate: float, rng: np.random.Generator, per_channel: bool = False
) -> tuple[np.ndarray, Any]:
    """Set a share ``rate`` of the values (of each image's channels, with per_channel) to 0, scale up the rest."""
    x = floats("x", x)
    shape = (len(x), *(1,) * (x.ndim - 2), x.shape[-1]) if per_channel else x.shape
    mask = (rng.random(shape) >= rate).astype(x.dtype) / x.dtype.type(1 - rate)
    return x * mask, mask


def dropout_backward(dout: np.ndarray, cache: Any) -> np.ndarray:
    """``dx = dout * mask``."""
    return floats("dout", dout) * cache


# ------------------------------------------------------------------------------------------------- pooling


def pool_size(
    size: Sequence[int], window: Sequence[int], stride: Sequence[int], padding: Sequence[int] = (0, 0),
    ceil: bool = False,
) -> tuple[int, ...]:  # fmt: skip
    """Return the (height, width) of a pooled map; with ``ceil`` a last window may hang over the edge."""
    out = []
    for length, k, s, p in zip(size, window, stride, padding, strict=True):
        if p * 2 > k:
            raise ValueError(f"padding: {padding} is more than half of the window {window}; some would see no value")
        if length + 2 * p < k:
            raise ValueError(f"x: a {tuple(size)} map does not fit a {window} pooling window with padding {padding}")
        n = (length + 2 * p - k + (s - 1 if ceil else 0)) // s + 1
        out.append(n - 1 if (n - 1) * s >= length + p else n)  # no window may start outside
    return tuple(out)


def _pooling(
    size: IntOrPair, stride: IntOrPair | None, padding: IntOrPair
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    stride = size if stride is None else stride
    return pair("size", size, 1), pair("stride", stride, 1), pair("padding", padding, 0)


def max_pool_forward(
    x: np.ndarray, size: IntOrPair, stride: IntOrPair | None = None, padding: IntOrPair = 0, ceil: bool = False
) -> tuple[np.ndarray, Any]:
    """Largest value of each window; padding never wins. The cache holds which tap won, one byte each."""
    window, stride, padding = _pooling(size, stride, padding)
    x = float_array("x", x, 4)
    if window[0] * window[1] > 256:
        raise ValueError(f"size: a window holds at most 256 values, got {window}")
    shape = (len(x), *pool_size(x.shape[1:3], window, stride, padding, ceil), x.shape[3])
    out, tap = np.empty(shape, x.dtype), np.empty(shape, np.uint8)
    engine.run(kernels.max_pool, len(x), x, *window, *stride, *padding, out, tap, work=x.size)
    return out, (x.shape, tap, window, stride, padding)


def max_pool_backward(dout: np.ndarray, cache: Any) -> np.ndarray:
    """Each gradient goes to the value that won its window (the first of equals)."""
    shape, tap, window, stride, padding = cache
    dout = floats("dout", dout)
    same_shape("dout", dout, tap.shape)
    dx = np.empty(shape, dout.dtype)
    engine.run(kernels.max_pool_dx, len(dx), dout, tap, *window, *stride, *padding, dx, work=dx.size)
    return dx


def _taps(shape, window, stride):
    """Index of each tap's values in the padded map, for loops over the few taps instead of the many pixels."""
    for a in range(window[0]):
        for b in range(window[1]):
            rows = slice(a, a + stride[0] * (shape[1] - 1) + 1, stride[0])
            yield slice(None), rows, slice(b, b + stride[1] * (shape[2] - 1) + 1, stride[1])


def avg_pool_forward(
    x: np.ndarray, size: IntOrPair, stride: IntOrPair | None = None, padding: IntOrPair = 0
) -> tuple[np.ndarray, Any]:
    """Mean of each window, padding counted as zeros."""
    window, stride, padding = _pooling(size, stride, padding)
    x = float_array("x", x, 4)
    shape = (len(x), *pool_size(x.shape[1:3], window, stride, padding), x.shape[3])
    (ph, pw), out = padding, np.zeros(shape, x.dtype)
    padded = np.pad(x, ((0, 0), (ph, ph), (pw, pw), (0, 0)))
    for tap in _taps(shape, window, stride):
        out += padded[tap]
    return out / x.dtype.type(window[0] * window[1]), (x.shape, window, stride, padding)


def avg_pool_backward(dout: np.ndarray, cache: Any) -> np.ndarray:
    """Each value of a window gets an equal share of its gradient."""
    (n, height, width, channels), window, stride, (ph, pw) = cache
    dout = floats("dout", dout)
    dx = np.zeros((n, height + 2 * ph, width + 2 * pw, channels), dout.dtype)
    share = dout / dout.dtype.type(window[0] * window[1])
    for tap in _taps(dout.shape, window, stride):
        dx[tap] += share
    return dx[:, ph : ph + height, pw : pw + width]


# ------------------------------------------------------------------------------------------------- objects


class Layer:
    """One step of a network: `forward` keeps what `backward` needs, `backward` fills `grads` and returns dx.

    Attributes
    ----------
    name : str, unique in a network, such as "conv3.bn"
    params, grads : dict of arrays with the same keys; what an optimiser changes, and the gradients
    buffers : dict of arrays that are state but not learned (running statistics)
    watch, watch_output : None, or functions called with (layer, x) before and (layer, out) after each forward pass,
        to look inside a network
    """

    weights: str  # "real" or "binary", of the layers that have a parameter "w"
    inputs: str
    params: dict[str, np.ndarray]
    grads: dict[str, np.ndarray]
    buffers: dict[str, np.ndarray]
    cache: Any
    watch: Callable[..., Any] | None = None
    watch_output: Callable[..., Any] | None = None
    _forward: Callable[..., Any]  # each layer's own: (x, training) -> (out, cache)
    _backward: Callable[..., Any]  # (dout, cache) -> dx

    def __init__(self, name: str = "") -> None:
        self.name, self.cache = name, None
        self.params, self.grads, self.buffers = {}, {}, {}

    def walk(self) -> "Iterator[Layer]":
        """Yield the layers that do the work, in the order of the definition."""
        yield self

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        """Return the output for x (N, H, W, C); only with ``training`` is anything kept for `backward`."""
        if self.watch is not None:
            self.watch(self, x)
        out, cache = self._forward(x, training)
        self.cache = cache if training else None
        if self.watch_output is not None:
            self.watch_output(self, out)
        return out

    def backward(self, dout: np.ndarray) -> np.ndarray | Any:  # None of a first layer, with need_dx=False
        """Return dx, and fill `grads`. Uses up what the last training forward kept."""
        if self.cache is None:
            raise RuntimeError(f"{self.name or type(self).__name__}: call forward(x, training=True) before backward")
        cache, self.cache = self.cache, None
        return self._backward(dout, cache)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (H, W, C) of the output for an input of (H, W, C)."""
        return shape

    # what follows serves whole networks and single layers alike

    def parameters(self) -> "Iterator[tuple[str, Layer, str]]":
        """Yield (full name, layer, key) of every learned array, in a fixed order."""
        for layer in self.walk():
            for key in layer.params:
                yield f"{layer.name}.{key}", layer, key

    def state(self) -> dict[str, np.ndarray]:
        """Return {full name: array} of all parameters and buffers; the arrays are the network's own."""
        own = ((layer, group) for layer in self.walk() for group in (layer.params, layer.buffers))
        return {f"{layer.name}.{key}": value for layer, group in own for key, value in group.items()}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Copy arrays saved by `state` into the network, all of them or none.

        Raises
        ------
        ValueError
            A name is missing or unknown, or a shape differs.
        """
        own = self.state()
        if own.keys() != state.keys():
            missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
            raise ValueError(f"state: does not belong to this network; missing {missing[:3]}, unknown {unknown[:3]}")
        for name, value in state.items():
            if np.asarray(value).dtype.kind not in "fiu":
                raise ValueError(f"state: {name} holds {np.asarray(value).dtype}, expected numbers")
            if own[name].shape != np.shape(value):
                raise ValueError(f"state: {name} has shape {np.shape(value)}, expected {own[name].shape}")
        for name, value in state.items():
            own[name][...] = value


class Conv(Layer):
    """Real convolution with latent weights ``w`` (kh, kw, C_in, C_out), and a bias ``b`` if wanted."""

    weights, inputs = "real", "real"

    def __init__(
        self, name: str, w: np.ndarray, *, stride: IntOrPair = 1, padding: IntOrPair = 0, bias: bool = False,
        need_dx: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(name)
        self.params["w"] = w
        if bias:
            self.params["b"] = np.zeros(w.shape[3], w.dtype) if w.flags.writeable else w[0, 0, 0]
        self.stride, self.padding, self.need_dx = pair("stride", stride, 1), pair("padding", padding, 0), need_dx

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        w = self.params["w"]
        if shape[2] != w.shape[2]:
            raise ValueError(f"{self.name}: takes {w.shape[2]} channels, gets {shape[2]}")
        return *conv.output_size(shape[:2], w.shape[:2], self.stride, self.padding), w.shape[3]

    def _convolve(self, x, training):
        return conv.conv2d_forward(
            x, self.params["w"], stride=self.stride, padding=self.padding, need_cache=training
        )  # fmt: skip

    def _forward(self, x, training):
        out, cache = self._convolve(x, training)
        if "b" in self.params:
            out += self.params["b"]
        return out, cache

    def _backward(self, dout, cache):
        if "b" in self.params:
            self.grads["b"] = dout.sum(axis=(0, 1, 2))
        dx, self.grads["w"] = conv.conv2d_backward(dout, cache, self.need_dx)
        return dx


class BinaryWeightConv(Conv):
    """WeightBinConv: real inputs, ``alpha sign(w)`` for weights. ``w`` stays real, for the optimiser only."""

    weights = "binary"
    held: Any  # what `prepare` returned, within `packed_weights`

    def __init__(
        self, name: str, w: np.ndarray, *, stride: IntOrPair = 1, padding: IntOrPair = 0, bias: bool = False,
        rule: str = "paper", need_dx: bool = True,
    ) -> None:  # fmt: skip
        if w.shape[2] == 1:
            raise ValueError(f"{name}: C_in = 1 in a binary layer, where centring erases every weight; keep it real")
        super().__init__(name, w, stride=stride, padding=padding, bias=bias, need_dx=need_dx)
        self.rule, self.held = one_of("rule", rule, binarize.RULES), None

    def prepare(self) -> Any:
        """Return the weights in the form that the forward pass computes with."""
        return binarize.binary_weight(self.params["w"])

    def _convolve(self, x, training):
        # binary_weight_conv2d_forward in two steps: within `packed_weights` the first is done once for many batches
        w = self.prepare() if self.held is None else self.held
        return conv.conv2d_forward(x, w, stride=self.stride, padding=self.padding, need_cache=training)

    def _backward(self, dout, cache):
        dx = super()._backward(dout, cache)
        self.grads["w"] = binarize.weight_gradient(self.grads["w"], self.params["w"], self.rule)
        return dx


class XnorConv(BinaryWeightConv):
    """FullBinConv: the signs of the inputs and of the weights, XOR and popcount.

    ``scale=False`` leaves alpha out of the forward pass only: the rule for the weights' gradient keeps it.
    """

    inputs = "binary"

    def __init__(
        self, name: str, w: np.ndarray, *, stride: IntOrPair = 1, padding: IntOrPair = 0, rule: str = "paper",
        estimator: str = "ste", pad_value: int = 0, scale: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(name, w, stride=stride, padding=padding, rule=rule)
        self.estimator = one_of("estimator", estimator, tuple(binarize.ESTIMATORS))
        self.pad_value, self.scale = one_of("pad_value", pad_value, conv.PAD_VALUES), scale

    def prepare(self) -> conv.PackedWeights:
        return conv.pack_weights(self.params["w"], self.pad_value)

    def _convolve(self, x, training):
        return conv.xnor_conv2d_forward(
            x,
            self.prepare() if self.held is None else self.held,
            stride=self.stride,
            padding=self.padding,
            pad_value=self.pad_value,
            scale=self.scale,
            estimator=self.estimator,
            need_cache=training,
        )

    def _backward(self, dout, cache):
        dx, g = conv.xnor_conv2d_backward(dout, cache, self.need_dx)
        self.grads["w"] = binarize.weight_gradient(g, self.params["w"], self.rule)
        return dx


class BatchNorm(Layer):
    """BatchNorm over (N, H, W), with running statistics for evaluation. ``in_place`` overwrites dout, as in `ReLU`.

    ``init=False`` gives its arrays their shapes and no memory, for counting only.
    """

    def __init__(
        self, name: str, channels: int, dtype: DTypeLike = np.float32, in_place: bool = False, init: bool = True
    ) -> None:
        super().__init__(name)
        self.in_place = in_place
        if not init:
            nothing = np.broadcast_to(np.float32(0), channels)
            self.params, self.buffers = {"gamma": nothing, "beta": nothing}, {"mean": nothing, "var": nothing}
            return
        self.params = {"gamma": np.ones(channels, dtype), "beta": np.zeros(channels, dtype)}
        self.buffers = {"mean": np.zeros(channels), "var": np.ones(channels)}
        self.momentum = MOMENTUM

    def _forward(self, x, training):
        gamma, beta = self.params["gamma"], self.params["beta"]
        if not training:
            return batchnorm_inference(x, gamma, beta, self.buffers["mean"], self.buffers["var"]), None
        out, cache = batchnorm_forward(x, gamma, beta)
        count = x.size // x.shape[-1]
        unbiased = cache[4] * (count / max(count - 1, 1))
        for key, value in (("mean", cache[3]), ("var", unbiased)):
            self.buffers[key] += self.momentum * (value - self.buffers[key])
        return out, cache

    def _backward(self, dout, cache):
        dx, self.grads["gamma"], self.grads["beta"] = batchnorm_backward(dout, cache, self.in_place)
        return dx


class ReLU(Layer):
    """max(x, 0). ``in_place`` overwrites x and dout: only where nobody else holds them, as in a model's own blocks."""

    def __init__(self, name: str = "", in_place: bool = False) -> None:
        super().__init__(name)
        self.in_place = in_place

    def _forward(self, x, training):
        return relu_forward(x, self.in_place)

    def _backward(self, dout, cache):
        return relu_backward(dout, cache, self.in_place)


class PReLU(Layer):
    """ReLU with a learned slope a channel for negative values."""

    def __init__(self, name: str, channels: int, dtype: DTypeLike = np.float32) -> None:
        super().__init__(name)
        self.params = {"slope": np.full(channels, 0.25, dtype)}

    def _forward(self, x, training):
        return prelu_forward(x, self.params["slope"])

    def _backward(self, dout, cache):
        dx, self.grads["slope"] = prelu_backward(dout, cache)
        return dx


class MaxPool(Layer):
    """Largest value of each window."""

    def __init__(
        self, name: str, size: IntOrPair, stride: IntOrPair | None = None, padding: IntOrPair = 0, ceil: bool = False
    ) -> None:
        super().__init__(name)
        self.size, self.stride, self.padding = _pooling(size, stride, padding)
        self.ceil = ceil

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return *pool_size(shape[:2], self.size, self.stride, self.padding, self.ceil), shape[2]

    def _forward(self, x, training):
        return max_pool_forward(x, self.size, self.stride, self.padding, self.ceil)

    def _backward(self, dout, cache):
        return max_pool_backward(dout, cache)


class AvgPool(Layer):
    """Mean of each window; ``size=None`` means of the whole map."""

    def __init__(
        self, name: str, size: IntOrPair | None = None, stride: IntOrPair | None = None, padding: IntOrPair = 0
    ) -> None:
        super().__init__(name)
        self.size, self.stride, self.padding = size, stride, pair("padding", padding, 0)

    def _window(self, size):
        return tuple(size) if self.size is None else self.size

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return *pool_size(shape[:2], *_pooling(self._window(shape[:2]), self.stride, self.padding)), shape[2]

    def _forward(self, x, training):
        return avg_pool_forward(x, self._window(x.shape[1:3]), self.stride, self.padding)

    def _backward(self, dout, cache):
        return avg_pool_backward(dout, cache)


class Dropout(Layer):
    """Dropout in training, nothing in evaluation. ``rng`` is an explicit generator, set anew each epoch by training."""

    def __init__(
        self, name: str, rate: float, per_channel: bool = False, rng: np.random.Generator | None = None
    ) -> None:
        super().__init__(name)
        if not 0 <= real_number("rate", rate) < 1:
            raise ValueError(f"rate: expected a share from 0 up to 1, got {rate!r}")
        self.rate, self.per_channel, self.rng = rate, per_channel, rng or np.random.default_rng(0)

    def _forward(self, x, training):
        return dropout_forward(x, self.rate, self.rng, self.per_channel) if training else (x, None)

    def _backward(self, dout, cache):
        return dropout_backward(dout, cache)


class Flatten(Layer):
    """(N, H, W, C) to (N, 1, 1, H W C); the last one of a network with ``logits=True`` to (N, H W C)."""

    def __init__(self, name: str, logits: bool = False) -> None:
        super().__init__(name)
        self.logits = logits

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return 1, 1, int(np.prod(shape))

    def _forward(self, x, training):
        return x.reshape(len(x), -1) if self.logits else x.reshape(len(x), 1, 1, -1), x.shape

    def _backward(self, dout, cache):
        return dout.reshape(cache)


class Linear(Conv):
    """A fully connected layer: a 1x1 convolution of the flattened input. w is (1, 1, features, outputs)."""

    def __init__(self, name: str, w: np.ndarray, *, bias: bool = True, need_dx: bool = True) -> None:
        super().__init__(name, w, bias=bias, need_dx=need_dx)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return super().output_shape((1, 1, int(np.prod(shape))))

    def _forward(self, x, training):
        out, cache = super()._forward(x.reshape(len(x), 1, 1, int(np.prod(x.shape[1:]))), training)
        return out.reshape(len(x), -1), (cache, x.shape)

    def _backward(self, dout, cache):
        cache, shape = cache
        dx = super()._backward(np.ascontiguousarray(dout).reshape(len(dout), 1, 1, -1), cache)
        return None if dx is None else dx.reshape(shape)


# ---------------------------------------------------------------------------------------------- containers


class Sequential(Layer):
    """Layers one after another. ``spec`` is what `models.build` made it from, so that it can be built again."""

    spec: Any  # a dict, or None

    def __init__(self, layers: Iterable[Layer], name: str = "", spec: dict[str, Any] | None = None) -> None:
        super().__init__(name)
        self.layers, self.spec = list(layers), spec

    def walk(self) -> Iterator[Layer]:
        for layer in self.layers:
            yield from layer.walk()

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        if self.spec is not None:
            self._check_images(x)
        for layer in self.layers:
            x = layer.forward(x, training)
        return x

    def _check_images(self, x):
        size = self.spec["input_size"]
        expected = (size, size, self.spec["in_channels"])
        if np.ndim(x) != 4 or x.shape[1:] != expected or len(x) == 0:
            raise ValueError(f"x: expected images (N, {size}, {size}, {expected[2]}), N >= 1, got shape {np.shape(x)}")
        own = next((layer.params[key].dtype for _, layer, key in self.parameters()), x.dtype)
        if x.dtype != own:
            raise TypeError(f"x: expected images of {own}, got {x.dtype}")

    def backward(self, dout: np.ndarray) -> np.ndarray | Any:
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        return dout

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        for layer in self.layers:
            shape = layer.output_shape(shape)
        return shape


def _own(branch, x):
    """Return x, or a copy for a branch that begins by overwriting it while others still read it."""
    first = next(branch.walk(), None)
    return x.copy() if isinstance(first, ReLU) and first.in_place else x


class Residual(Layer):
    """``out = body(x) + shortcut(x)``; an empty shortcut passes x on."""

    def __init__(self, body: Sequential, shortcut: Sequential | None = None, name: str = "") -> None:
        super().__init__(name)
        self.body, self.shortcut = body, shortcut or Sequential([])

    def walk(self) -> Iterator[Layer]:
        yield from self.body.walk()
        yield from self.shortcut.walk()

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        return self.body.forward(_own(self.body, x), training) + self.shortcut.forward(x, training)

    def backward(self, dout: np.ndarray) -> np.ndarray | Any:
        return self.body.backward(dout.copy()) + self.shortcut.backward(dout)  # the body may work in place

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        body, shortcut = self.body.output_shape(shape), self.shortcut.output_shape(shape)
        if body != shortcut:
            raise ValueError(f"{self.name}: the body makes {body}, the shortcut {shortcut}; their sum needs one shape")
        return body


class Concat(Layer):
    """The outputs of several branches, side by side along the channels."""

    def __init__(self, branches: Iterable[Sequential], name: str = "") -> None:
        super().__init__(name)
        self.branches = list(branches)

    def walk(self) -> Iterator[Layer]:
        for branch in self.branches:
            yield from branch.walk()

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        outs = [branch.forward(_own(branch, x), training) for branch in self.branches]
        self.cache = np.cumsum([out.shape[-1] for out in outs])[:-1] if training else None
        return np.concatenate(outs, axis=-1)

    def _backward(self, dout, cache):
        parts = np.split(dout, cache, axis=-1)
        return sum(b.backward(np.ascontiguousarray(d)) for b, d in zip(self.branches, parts, strict=True))

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        shapes = [branch.output_shape(shape) for branch in self.branches]
        if len({s[:2] for s in shapes}) > 1:
            raise ValueError(f"{self.name}: branches of different sizes {shapes}")
        return *shapes[0][:2], sum(s[2] for s in shapes)


@contextmanager
def watching(
    model: Layer, function: Callable[[Any, np.ndarray], Any], kind: type[Layer] = Layer, output: bool = False
) -> Iterator[None]:
    """Within the block, call ``function(layer, x)`` with the input, or the output, of every layer of class ``kind``."""
    watched = [layer for layer in model.walk() if isinstance(layer, kind)]
    attribute = "watch_output" if output else "watch"
    try:
        for layer in watched:
            setattr(layer, attribute, function)
        yield
    finally:
        for layer in watched:
            setattr(layer, attribute, None)


@contextmanager
def packed_weights(model: Layer) -> Iterator[Layer]:
    """Within the block, binary layers binarize and pack their weights once instead of at every forward pass.

    For evaluation: the weights must not change inside the block.
    """
    binary = [layer for layer in model.walk() if isinstance(layer, BinaryWeightConv)]
    try:
        for layer in binary:
            layer.held = layer.prepare()
        yield model
    finally:
        for layer in binary:
            layer.held = None
