"""Top floor, plots of the course: the pictures of the notebooks, drawn from plain data, in the colours of `plots`."""

from .bars import bits_before_after, bytes_a_layer, grouped_bars, ladder, strips
from .choosing import cloud, five_steps
from .convolution import bit_convolution
from .curves import arms, bands, drops, latent_weights, lines, pseudo_gradients, scatters, seeds, staircase, two_paths
from .gradient import batchnorm_graph
from .grids import answer, cells, maps, words
from .network import network_map
from .signs import entering_bits, maps_and_signs

__all__ = [
    "answer",
    "arms",
    "bands",
    "batchnorm_graph",
    "bit_convolution",
    "bits_before_after",
    "bytes_a_layer",
    "cells",
    "cloud",
    "drops",
    "entering_bits",
    "five_steps",
    "grouped_bars",
    "ladder",
    "latent_weights",
    "lines",
    "maps",
    "maps_and_signs",
    "network_map",
    "pseudo_gradients",
    "scatters",
    "seeds",
    "staircase",
    "strips",
    "two_paths",
    "words",
]
