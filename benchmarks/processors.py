"""Which kind of processor is measured, and how to hold all contenders back to a lesser one.

The compilers and libraries read these settings when they start, so `restarted` starts the program again with them. Then
each peer says what it uses (`peers.Peer.kernels`), and is left out if it does not obey. NumPy's own loops keep what
they find; no table depends on them.
"""

import os
import subprocess
import sys

from hbn_ref import simd

KINDS = {512: "avx512", 256: "avx2", 128: "neon", 0: "plain"}  # bits of a register: a name for files
HELD_BACK = {
    "avx2": {
        "NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma,+bmi,+bmi2,+lzcnt,+popcnt",
        "OPENBLAS_CORETYPE": "Haswell", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    }
}  # fmt: skip
MARK = "HBN_BENCHMARKS_CPU"  # set for the program that was started again


def kind():
    """The processor that kernels are compiled for: avx512, avx2, neon or plain."""
    return KINDS[simd.register_bits()]


def held_back():
    """The kind that all contenders are held back to, or None."""
    return os.environ.get(MARK) or None


def restarted(cpu, argv):
    """Run the benchmarks again, held back to ``cpu``; return the exit status, or None if that is done already."""
    if cpu is None or held_back() == cpu:
        return None
    environment = {**os.environ, **HELD_BACK[cpu], MARK: cpu}
    return subprocess.run([sys.executable, "-m", "benchmarks", *argv], env=environment).returncode


def obeys(kernels):
    """Whether a peer whose kernels are called so ("AVX512", "jit_avx2_u1") keeps to what it was told."""
    return held_back() is None or "avx512" not in kernels.lower()
