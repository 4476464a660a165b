"""The faults of `mutations.py` can be planted in the code as it stands, and the published table is about them."""

import json

import mutations
import pytest


@pytest.mark.parametrize("fault", mutations.FAULTS, ids=lambda fault: f"{fault.chapter}: {fault.what}")
def test_a_fault_has_one_place(fault):
    text = (mutations.ROOT / "hbn_ref" / f"{fault.file}.py").read_text("utf-8")
    assert text.count(fault.old) == 1 and fault.new != fault.old


def test_the_published_table_has_every_fault_and_who_noticed_it():
    rows = json.loads((mutations.ROOT / "results" / "mutations.json").read_text("utf-8"))
    assert [(row["chapter"], row["fault"]) for row in rows] == [
        (fault.chapter, fault.what) for fault in mutations.FAULTS
    ]
    assert all(row["noticed_by"].startswith("test_") for row in rows)
