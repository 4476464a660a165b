"""Layer objects: each holds a pass, its parameters, and what its backward pass needs."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from .. import binarize, conv
from ..checks import IntOrPair, one_of, pair, real_number
from .passes import (
    avg_pool_backward,
    avg_pool_forward,
    batchnorm_backward,
    batchnorm_forward,
    batchnorm_inference,
    dropout_backward,
    dropout_forward,
    max_pool_backward,
    max_pool_forward,
    pool_size,
    pooling,
    prelu_backward,
    prelu_forward,
    relu_backward,
    relu_forward,
)  # fmt: skip

MOMENTUM = 0.1  # weight of the newest batch in BatchNorm's running statistics


class Layer:
    """One step of a network: `forward` keeps what `backward` needs, `backward` fills `grads` and returns dx.

    Attributes
    ----------
    name : str, unique in a network, such as "conv3.bn"
    params, grads : dicts of arrays with the same keys; an optimiser changes the first by the second
    buffers : dict of arrays that belong to the state and are not learned, such as running statistics
    watch, watch_output : None, or functions that look inside a network: the first is called with (layer, x) before
        each forward pass, the second with (layer, out) after it
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
        """Return the output for x (N, H, W, C). With ``training`` it keeps what `backward` needs, otherwise nothing."""
        if self.watch is not None:
            self.watch(self, x)
        out, cache = self._forward(x, training)
        self.cache = cache if training else None
        if self.watch_output is not None:
            self.watch_output(self, out)
        return out

    def backward(self, dout: np.ndarray) -> np.ndarray | Any:  # None of a first layer, with need_dx=False
        """Return dx and fill `grads`. This uses up what the last forward pass in training kept."""
        if self.cache is None:
            raise RuntimeError(f"{self.name or type(self).__name__}: call forward(x, training=True) before backward")
        cache, self.cache = self.cache, None
        return self._backward(dout, cache)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (H, W, C) of the output for an input of (H, W, C)."""
        return shape

    # what follows works for a single layer and for a whole network

    def parameters(self) -> "Iterator[tuple[str, Layer, str]]":
        """Yield (full name, layer, key) of every learned array, in a fixed order."""
        for layer in self.walk():
            for key in layer.params:
                yield f"{layer.name}.{key}", layer, key

    def state(self) -> dict[str, np.ndarray]:
        """Return {full name: array} of all parameters and buffers. The arrays are the network's own, not copies."""
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
    """Real convolution with weights ``w`` (kh, kw, C_in, C_out), and a bias ``b`` if wanted."""

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
    """WeightBinConv: real inputs, ``alpha sign(w)`` for weights. ``w`` itself stays real, for the optimiser alone."""

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
        """Return the weights as the forward pass takes them."""
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
    """FullBinConv: signs of inputs and of weights, XOR and popcount.

    ``scale=False`` leaves alpha out of the forward pass. The rule for the weights' gradient keeps it.
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

    With ``init=False`` its arrays have shapes and take no memory: enough to count them.
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
    """max(x, 0). ``in_place`` overwrites x and dout: safe where nobody else holds them, as in a model's own blocks."""

    def __init__(self, name: str = "", in_place: bool = False) -> None:
        super().__init__(name)
        self.in_place = in_place

    def _forward(self, x, training):
        return relu_forward(x, self.in_place)

    def _backward(self, dout, cache):
        return relu_backward(dout, cache, self.in_place)


class PReLU(Layer):
    """ReLU with one learned slope per channel for negative values."""

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
        self.size, self.stride, self.padding = pooling(size, stride, padding)
        self.ceil = ceil

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return *pool_size(shape[:2], self.size, self.stride, self.padding, self.ceil), shape[2]

    def _forward(self, x, training):
        return max_pool_forward(x, self.size, self.stride, self.padding, self.ceil)

    def _backward(self, dout, cache):
        return max_pool_backward(dout, cache)


class AvgPool(Layer):
    """Mean of each window, or with ``size=None`` of the whole map."""

    def __init__(
        self, name: str, size: IntOrPair | None = None, stride: IntOrPair | None = None, padding: IntOrPair = 0
    ) -> None:
        super().__init__(name)
        self.size, self.stride, self.padding = size, stride, pair("padding", padding, 0)

    def _window(self, size):
        return tuple(size) if self.size is None else self.size

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return *pool_size(shape[:2], *pooling(self._window(shape[:2]), self.stride, self.padding)), shape[2]

    def _forward(self, x, training):
        return avg_pool_forward(x, self._window(x.shape[1:3]), self.stride, self.padding)

    def _backward(self, dout, cache):
        return avg_pool_backward(dout, cache)


class Dropout(Layer):
    """Dropout in training, nothing in evaluation. Training sets ``rng``, a random generator, anew in each epoch."""

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
    """(N, H, W, C) to (N, 1, 1, H W C), or with ``logits=True``, at the end of a network, to (N, H W C)."""

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
