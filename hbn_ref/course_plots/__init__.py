"""Top floor, plots of the course: the pictures of the notebooks, drawn from plain data, in the colours of `plots`."""

from .bars import bits_before_after, bytes_a_layer, grouped_bars, ladder, strips
from .choosing import cloud, kept_maps, metric_steps
from .curves import arms, bands, drops, latent_weights, lines, pseudo_gradients, scatters, seeds, staircase, two_paths
from .grids import answer, filter_and_sign, maps, words

__all__ = [
    "answer",
    "arms",
    "bands",
    "bits_before_after",
    "bytes_a_layer",
    "cloud",
    "drops",
    "filter_and_sign",
    "grouped_bars",
    "kept_maps",
    "ladder",
    "latent_weights",
    "lines",
    "maps",
    "metric_steps",
    "pseudo_gradients",
    "scatters",
    "seeds",
    "staircase",
    "strips",
    "two_paths",
    "words",
]
