"""Chapter 5, models: one definition per network, from which every variant is built.

A definition is a list that reads like the paper's table. It is plain data, so that a saved model carries its own. The
variant changes only how each convolution computes (paper, sections 1 and 3):

=======  ==================================  =====================================================
variant  weights, inputs                     block
=======  ==================================  =====================================================
fprec    real, real                          conv -> BatchNorm -> ReLU
wbin     alpha sign(w), real                 conv -> BatchNorm -> ReLU
fbin     alpha sign(w), sign(x)              BatchNorm -> sign -> conv -> ReLU
hybrid   as fbin, but ``keep_real`` as wbin
=======  ==================================  =====================================================

The first convolution is always real. So is the classifier, unless ``last_layer="binary"`` makes its weights binary; its
inputs stay real. Convolutions are numbered in the order of the definition, from 1.

`definitions` holds the words of a definition and the networks, `building` makes layers of them, `sizes` counts numbers
and bytes, `saving` writes and reads a network's file.
"""

from .building import MOST_WEIGHTS, build, from_spec, start_from
from .definitions import (
    ALEXNET,
    GOOGLENET,
    HYBRIDS,
    NETWORKS,
    RESNET18,
    SKETCHANET,
    SMALL,
    SQUEEZENET,
    VARIANTS,
    Item,
    average,
    binarizable,
    classifier,
    concat,
    conv,
    definition_of,
    dropout,
    layer_numbers,
    max_pool,
    parse,
    relu,
    residual,
    resolve_keep_real,
)
from .saving import FORMAT, check_preprocessing, load, save
from .sizes import bytes_needed, leaves, spec_of

__all__ = [
    "ALEXNET",
    "FORMAT",
    "GOOGLENET",
    "HYBRIDS",
    "MOST_WEIGHTS",
    "NETWORKS",
    "RESNET18",
    "SKETCHANET",
    "SMALL",
    "SQUEEZENET",
    "VARIANTS",
    "Item",
    "average",
    "binarizable",
    "build",
    "bytes_needed",
    "check_preprocessing",
    "classifier",
    "concat",
    "conv",
    "definition_of",
    "dropout",
    "from_spec",
    "layer_numbers",
    "leaves",
    "load",
    "max_pool",
    "parse",
    "relu",
    "residual",
    "resolve_keep_real",
    "save",
    "spec_of",
    "start_from",
]
