"""Chapter 4, layers: what stands between convolutions, and the objects that hold state.

`passes` holds plain functions: forward returns ``(out, cache)``, backward takes ``(dout, cache)``. `objects` wraps
them, and the convolutions of chapter 3, in thin objects with `forward`, `backward` and named parameters. `containers`
puts these together. There is no automatic differentiation: a container calls its layers' backward in reverse.

Everything is channels-last, (N, H, W, C). Block order, as in the paper (section 3):
real or binary-weight layers ``conv -> BatchNorm -> ReLU``, fully binary ones ``BatchNorm -> sign -> conv -> ReLU``.
BatchNorm before the sign centres the inputs: after a ReLU alone every sign would be +1.
"""

from .containers import Concat, Residual, Sequential, packed_weights, watching
from .objects import (
    MOMENTUM,
    AvgPool,
    BatchNorm,
    BinaryWeightConv,
    Conv,
    Dropout,
    Flatten,
    Layer,
    Linear,
    MaxPool,
    PReLU,
    ReLU,
    XnorConv,
)
from .passes import (
    EPS,
    avg_pool_backward,
    avg_pool_forward,
    batchnorm_backward,
    batchnorm_forward,
    batchnorm_inference,
    dropout_backward,
    dropout_forward,
    fold_batchnorm,
    max_pool_backward,
    max_pool_forward,
    pool_size,
    prelu_backward,
    prelu_forward,
    relu_backward,
    relu_forward,
    scale_shift,
)

__all__ = [
    "EPS",
    "MOMENTUM",
    "AvgPool",
    "BatchNorm",
    "BinaryWeightConv",
    "Concat",
    "Conv",
    "Dropout",
    "Flatten",
    "Layer",
    "Linear",
    "MaxPool",
    "PReLU",
    "ReLU",
    "Residual",
    "Sequential",
    "XnorConv",
    "avg_pool_backward",
    "avg_pool_forward",
    "batchnorm_backward",
    "batchnorm_forward",
    "batchnorm_inference",
    "dropout_backward",
    "dropout_forward",
    "fold_batchnorm",
    "max_pool_backward",
    "max_pool_forward",
    "packed_weights",
    "pool_size",
    "prelu_backward",
    "prelu_forward",
    "relu_backward",
    "relu_forward",
    "scale_shift",
    "watching",
]
