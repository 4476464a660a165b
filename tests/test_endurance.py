"""Memory of a long run, and that the measure of it sees a leak."""

import mmap
import os
import sys

import endurance
import numpy as np
import pytest
from conftest import JIT

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")


def rising(rounds, a_round, start=200.0):
    noise = np.random.default_rng(0).normal(0, 0.5, rounds)
    return [start + a_round * i + noise[i] for i in range(rounds)]


def test_growth_is_what_was_gained_from_the_second_quarter_to_the_last():
    assert abs(endurance.growth(rising(400, 0.0))) < 0.5
    assert endurance.growth(rising(400, 0.1)) == pytest.approx(20, abs=0.5)  # 200 rounds later
    assert endurance.growth(rising(400, 0.1)) > endurance.LIMIT


def test_what_is_allocated_at_the_start_is_no_growth():
    warm_up = [100.0 + 5 * i for i in range(100)]
    assert abs(endurance.growth(warm_up + rising(300, 0.0, start=600.0))) < 0.5


def test_too_few_rounds_say_so():
    with pytest.raises(ValueError, match="7 rounds are too few"):
        endurance.growth(rising(7, 0.0))


@linux
def test_resident_memory_is_that_of_this_process():
    before = endurance.resident()
    with mmap.mmap(-1, 64 * 2**20) as block:  # from the system, not from what this process once had and freed
        block[:: mmap.PAGESIZE] = b"1" * (len(block) // mmap.PAGESIZE)  # written, so really there
        assert 60 < endurance.resident() - before < 80


@linux
@pytest.mark.slow
@pytest.mark.skipif(not JIT, reason="as slow as the kernels are without the compiler")
def test_memory_does_not_grow():
    """30 minutes; HBN_MINUTES makes it shorter."""
    memory = endurance.run(float(os.environ.get("HBN_MINUTES", endurance.MINUTES)))
    assert endurance.growth(memory) <= endurance.LIMIT
