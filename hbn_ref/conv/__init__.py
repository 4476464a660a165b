"""Chapter 3, conv: three convolutions, forward and backward.

All three compute the same sum and the same two gradients, which `real` derives. They differ in what stands for x and w:

=================  ===========  ===================  =======================================
convolution        x            w                    product
=================  ===========  ===================  =======================================
conv2d             real         real                 multiply and add
binary_weight      real         alpha sign(w)        multiply and add (an add would do)
xnor               sign(x)      alpha sign(w)        XOR, count bits; alpha once at the end
=================  ===========  ===================  =======================================

`real` holds the first two, `xnor` the third. `packed` holds weights as bits, `geometry` says where the patches of a map
lie. XNOR-Net also scales the inputs, by K; the paper's authors leave K out, and so do we.
"""

from .geometry import output_size
from .packed import PAD_VALUES, PackedWeights, pack_weights
from .real import (
    binary_weight_conv2d_backward,
    binary_weight_conv2d_forward,
    conv2d_backward,
    conv2d_forward,
    unpacking_conv2d,
)
from .xnor import count, xnor_conv2d_backward, xnor_conv2d_forward

__all__ = [
    "PAD_VALUES",
    "PackedWeights",
    "binary_weight_conv2d_backward",
    "binary_weight_conv2d_forward",
    "conv2d_backward",
    "conv2d_forward",
    "count",
    "output_size",
    "pack_weights",
    "unpacking_conv2d",
    "xnor_conv2d_backward",
    "xnor_conv2d_forward",
]
