"""hbn_ref: the reference implementation of Hybrid Binary Networks in NumPy and Numba, to learn from and test against.

Chapters, in order: `bits`, `binarize`, `conv`, `layers`, `models`, `train`, `cost`, `hybrid`, `deploy`. Below them the
engine room (`compiler`, `kernels`, `simd`, `engine`, `reference`, `checks`, `files`, `memory`), above them `study`,
`presets`, `choices`, `claims`, `abstract`, `recipe`, `plots`, `course_plots`, `draw`, `testing` and the command line.
"""

from .engine import get_kernel, get_num_threads, set_kernel, set_num_threads

__version__ = "0.2.0"
__all__ = ["get_kernel", "get_num_threads", "set_kernel", "set_num_threads"]
