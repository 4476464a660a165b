"""The faults of `mutations.py` can be planted in the code as it stands, and the published table is about them."""

import json

import mutations
import pytest
from conftest import JIT

CHAPTERS = dict.fromkeys(fault.chapter for fault in mutations.FAULTS)


@pytest.mark.parametrize("fault", mutations.FAULTS, ids=lambda fault: f"{fault.chapter}: {fault.what}")
def test_a_fault_has_one_place(fault):
    text = (mutations.ROOT / "hbn_ref" / f"{fault.file}.py").read_text("utf-8")
    assert text.count(fault.old) == 1 and fault.new != fault.old


def test_the_published_table_has_every_fault_and_the_test_that_noticed_it():
    rows = json.loads((mutations.ROOT / "results" / "mutations.json").read_text("utf-8"))
    assert [(row["chapter"], row["fault"]) for row in rows] == [
        (fault.chapter, fault.what) for fault in mutations.FAULTS
    ]
    tests = {chapter: (mutations.ROOT / "tests" / f"test_{chapter}.py").read_text("utf-8") for chapter in CHAPTERS}
    for row in rows:
        name, bracket, case = row["noticed_by"].partition("[")
        assert f"\ndef {name}(" in tests[row["chapter"]], row
        assert case.endswith("]") or not bracket, row


@pytest.mark.slow
@pytest.mark.skipif(not JIT, reason="as slow as the kernels are without the compiler")
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_fault_of_a_chapter_is_noticed(chapter):
    """Nothing is written: only a run of all chapters writes the table."""
    assert mutations.main([chapter]) == 0
