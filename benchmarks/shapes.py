"""The convolutions that are timed: layers of ResNet-18 (224 x 224) and of Sketch-A-Net (225 x 225)."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from hbn_ref import cost, models

BATCHES = (1, 32)
# label: (network, input size, input channels, its layer). Sketch-A-Net's conv6 is left out: 7 x 7 to 1 x 1 is a matrix
# product, and PyTorch's convolution of it is far slower than its own matrix product would be.
LAYERS = {
    "64@56": ("resnet18", 224, 3, "conv2"),
    "128@28": ("resnet18", 224, 3, "conv7"),
    "256@14": ("resnet18", 224, 3, "conv11"),
    "512@7": ("resnet18", 224, 3, "conv15"),
    "sk2": ("sketchanet", 225, 1, "conv2"),
    "sk3": ("sketchanet", 225, 1, "conv3"),
    "sk4": ("sketchanet", 225, 1, "conv4"),
    "sk5": ("sketchanet", 225, 1, "conv5"),
}


@dataclass(frozen=True)
class Shape:
    """One convolution with stride 1; macs of one image."""

    name: str
    input: tuple  # (H, W, C)
    kernel: tuple  # (kh, kw, C_in, C_out)
    padding: int
    macs: int

    @property
    def is_wide(self):
        """Whether it has at least 128 channels on both sides."""
        return min(self.kernel[2:]) >= 128


@cache
def _convolutions(network, size, channels):
    model = models.build(network, "fprec", num_classes=250, in_channels=channels, input_size=size, init=False)
    return {layer.name: (layer, inside, outside) for layer, inside, outside in cost.visit(model)}


def _shape(name, network, size, channels, layer):
    layer, inside, outside = _convolutions(network, size, channels)[layer]
    kernel = layer.params["w"].shape
    return Shape(name, inside, kernel, layer.padding[0], int(np.prod(outside[:2]) * np.prod(kernel)))


SHAPES = [_shape(name, *place) for name, place in LAYERS.items()]


def named(name):
    return next(shape for shape in SHAPES if shape.name == name)


def tensors(shape, batch):
    """x (N, H, W, C_in) and w (kh, kw, C_in, C_out), float32."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, *shape.input)).astype(np.float32)
    return x, rng.standard_normal(shape.kernel).astype(np.float32)
