"""Chapter 9, deploy: a trained network, packed: bits and whole numbers from one binary layer to the next.

Between two fully binary layers, alpha, ReLU, max pooling, BatchNorm and sign together are one comparison of a whole
number with a threshold: `thresholds` derives and finds it. Everywhere else a value stays real: BatchNorm is folded into
one scale and shift per channel, binary weights are kept as bits.

`compiling` turns a trained network into `steps`, `network` runs them, `saving` writes and reads the file: one bit per
binary weight, 32 per real weight, scale, shift and threshold.
"""

from .compiling import compile
from .network import DOUBTED, NONE, PackedNetwork, best, ranked, with_doubt
from .saving import FORMAT, file_bytes, load, save
from .steps import Apply, BinaryWeightConvolve, Concat, Convolve, Count, MaxPool, Residual, Scale, Signs, Threshold
from .thresholds import threshold

__all__ = [
    "DOUBTED",
    "FORMAT",
    "NONE",
    "Apply",
    "BinaryWeightConvolve",
    "Concat",
    "Convolve",
    "Count",
    "MaxPool",
    "PackedNetwork",
    "Residual",
    "Scale",
    "Signs",
    "Threshold",
    "best",
    "compile",
    "file_bytes",
    "load",
    "ranked",
    "save",
    "threshold",
    "with_doubt",
]
