"""The README: its examples run, and its figures are those of the files and tests that it names."""

import json
import re
from pathlib import Path

import mutations
import pytest
import test_testing_faults

from hbn_ref import conv

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = [block for block in re.findall(r"```python\n(.*?)```", README, re.S) if "runs/" not in block]


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_an_example_runs(block):
    def my_conv(x, w, **options):
        return conv.xnor_conv2d_forward(x, w, scale=False, **options)[0]

    block = re.sub(r"^def my_conv.*\n(    .*\n)+", "", block, flags=re.M)  # its body is the reader's
    exec(block, {"my_conv": my_conv})


def test_figures_are_those_of_the_files_beside_them():
    about = json.loads((ROOT / "results" / "endurance.json").read_text("utf-8"))
    assert f"{about['rounds']:,} rounds: {about['growth_mib']} MiB more" in README
    assert f"{round(about['peak_mib'])} MiB at most" in README
    assert f"| {len(mutations.FAULTS)} planted one by one" in README
    faults = [
        len(own) for name, own in vars(test_testing_faults).items() if name.endswith("_FAULTS") or name == "ISSUE"
    ]
    assert "more than 100 faults planted in other" in README and sum(faults) > 100


def test_files_that_it_names_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target
