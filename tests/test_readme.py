"""The pages: their examples run, their figures are those of the files and tests that they name, their links lead on."""

import json
import re
from pathlib import Path

import mutations
import pytest
import test_testing_faults
from conftest import JIT

from hbn_ref import conv, testing

ROOT = Path(__file__).parents[1]
FIRST, PACKAGE, PROMISES = ((ROOT / name / "README.md").read_text("utf-8") for name in (".", "hbn_ref", "tests"))
PAGES = sorted(path for path in (*ROOT.glob("*.md"), *ROOT.glob("*/README.md")) if not path.parts[-2].startswith("."))
BLOCKS = [block for block in re.findall(r"```python\n(.*?)```", FIRST + PACKAGE, re.S) if "runs/demo" not in block]


@pytest.mark.parametrize("block", [
    pytest.param(block, marks=[pytest.mark.slow] * ("study.run" in block), id=str(number))
    for number, block in enumerate(BLOCKS)
])  # fmt: skip
def test_an_example_runs(block, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    if "check_xnor_conv" in block and not JIT:
        pytest.skip("two thousand cases as plain Python take very long")

    def my_conv(x, w, **options):
        return conv.xnor_conv2d_forward(x, w, scale=False, **options)[0]

    block = re.sub(r"^def my_conv.*\n(    .*\n)+", "", block, flags=re.M)  # its body is the reader's
    exec(block, {"my_conv": my_conv})


def test_figures_are_those_of_the_files_beside_them():
    about = json.loads((ROOT / "results" / "endurance.json").read_text("utf-8"))
    assert f"{about['rounds']:,} rounds: {about['growth_mib']} MiB more" in PROMISES
    assert f"{round(about['peak_mib'])} MiB at most" in PROMISES
    assert f"| {len(mutations.FAULTS)} planted one by one" in PROMISES
    faults = [
        len(own) for name, own in vars(test_testing_faults).items() if name.endswith("_FAULTS") or name == "ISSUE"
    ]
    assert "more than 100 faults planted in other" in PROMISES and sum(faults) > 100


def test_the_first_page_is_short_and_begins_with_a_picture():
    lines = FIRST.splitlines()
    assert len(lines) <= 150
    assert lines[2].startswith("![")


def test_the_kit_has_as_many_cases_as_the_page_says():
    assert f"has {len(testing.conv_cases()):,} cases" in PACKAGE


def prose(page):
    """A page without its blocks of code."""
    return re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.S)


def anchors(page):
    """The places in a page that a link can name: its headings, as GitHub spells them."""
    titles = re.findall(r"^#+ +(.+)$", prose(page), re.M)
    return {re.sub(r"[^a-z0-9 _-]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    links = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    assert links
    for link in links:
        target, _, anchor = link.partition("#")
        if not target.startswith("http"):
            path = (page.parent / target) if target else page
            assert path.exists(), link
            assert not anchor or anchor in anchors(path), link
