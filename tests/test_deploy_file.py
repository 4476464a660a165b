"""Chapter 9, deploy: the file and what may happen to it, the commands that write and read it, the one that ships."""

import copy
import io
import json
import os
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_deploy import BRANCHED, CHAIN, ONE_BINARY, assert_identical, images, needs_jit, packed, trained

import data_tools
from data_tools import doodles, strokes
from hbn_ref import deploy, draw, files, gallery, models
from hbn_ref.__main__ import main
from hbn_ref.models import average, concat

__all__ = ["packed"]  # a fixture
HYBRID = gallery.BUILT_IN / "hybrid.npz"


# ------------------------------------------------------------------------------------------------ file


def test_file_is_an_npz_without_pickle_with_three_arrays(packed, tmp_path):
    path = tmp_path / "folder" / "packed.npz"
    deploy.save(packed, path)
    with np.load(path, allow_pickle=False) as content:
        assert sorted(content.files) == ["bits", "floats", "header"]
        assert content["bits"].dtype == np.uint8 and content["floats"].dtype == np.float32
        assert content["bits"].nbytes + content["floats"].nbytes == deploy.file_bytes(packed)
        header = json.loads(content["header"].tobytes())
    assert header["format"] == "hbn_ref packed 1"
    assert header["classes"] == packed.classes and header["preprocessing"] == packed.preprocessing
    assert header["spec"] == files.plain(packed.spec)
    assert {"shapes", "checksum"} <= header.keys()
    assert [entry.name for entry in path.parent.iterdir()] == ["packed.npz"]


def test_save_load_save_gives_the_same_bytes(packed, tmp_path):
    first, second = tmp_path / "1.npz", tmp_path / "2.npz"
    deploy.save(packed, first)
    packed(images(packed, 1))  # a call works things out; none of them is written
    deploy.save(deploy.load(first), second)
    assert first.read_bytes() == second.read_bytes()
    deploy.save(packed, str(second))
    assert first.read_bytes() == second.read_bytes()
    loaded = deploy.load(str(second))
    assert_identical(loaded, packed)


def test_a_loaded_network_traces_the_same_bits(packed, tmp_path):
    deploy.save(packed, tmp_path / "packed.npz")
    x = images(packed, 2)
    logits, expected = packed.trace(x)
    again, found = deploy.load(tmp_path / "packed.npz").trace(x)
    assert np.array_equal(logits, again) and [name for name, _ in found] == [name for name, _ in expected]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(found, expected, strict=True))


def test_a_file_keeps_the_doubt_and_older_files_have_none(packed, tmp_path):
    deploy.save(packed, tmp_path / "old.npz")
    assert "none_of_these" not in files.read_arrays(tmp_path / "old.npz", deploy.FORMAT)[0]
    assert deploy.load(tmp_path / "old.npz").none_of_these is None
    doubting = deploy.with_doubt(packed, [images(packed, 5)])
    deploy.save(doubting, tmp_path / "new.npz")
    assert deploy.load(tmp_path / "new.npz").none_of_these == doubting.none_of_these
    for wrong in ("1", float("nan"), True, [1.0]):
        rewrite(tmp_path / "new.npz", lambda header, _, wrong=wrong: header.update(none_of_these=wrong))
        with pytest.raises(files.FileError, match="none_of_these"):
            deploy.load(tmp_path / "new.npz")


def test_failed_writing_leaves_the_old_file_and_nothing_else(packed, tmp_path, monkeypatch):
    path = tmp_path / "packed.npz"
    deploy.save(packed, path)
    before = path.read_bytes()

    def full_disk(file, **arrays):
        file.write(b"half")
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(np, "savez", full_disk)
        with pytest.raises(OSError, match="no space"):
            deploy.save(packed, path)
    with pytest.raises(TypeError):
        deploy.save(deploy.compile(trained(CHAIN, "fbin", steps=0), preprocessing={"mean": {1, 2}}), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["packed.npz"]


def test_model_files_and_packed_files_are_told_apart(packed, tmp_path):
    model = trained(CHAIN, "fbin", steps=0)
    models.save(model, tmp_path / "model.npz", classes=["a", "b", "c"], preprocessing={"size": 8})
    deploy.save(packed, tmp_path / "packed.npz")
    with pytest.raises(files.FileError, match=r"model\.npz: .*'hbn_ref packed 1'.*'hbn_ref model 1'"):
        deploy.load(tmp_path / "model.npz")
    with pytest.raises(files.FileError, match=r"packed\.npz: .*'hbn_ref model 1'.*'hbn_ref packed 1'"):
        models.load(tmp_path / "packed.npz")


def test_a_network_without_numbers_has_a_file_too(tmp_path):
    packed = deploy.compile(models.build([average()], "fprec", num_classes=2, in_channels=2, input_size=8))
    deploy.save(packed, tmp_path / "packed.npz")
    x = images(packed, 2)
    assert np.array_equal(deploy.load(tmp_path / "packed.npz")(x), packed(x))


# --------------------------------------------------------------------------------------- damaged files


def rewrite(path, change):
    """Let ``change(header, arrays)`` do what it likes to a file, with a checksum that fits afterwards."""
    header, arrays = files.read_arrays(path, deploy.FORMAT)
    change(header, arrays)
    try:
        header["checksum"] = deploy.saving._checksum(header, arrays["floats"], arrays["bits"])
    except (KeyError, TypeError):
        pass  # no such array: no checksum either
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)  # NaN and infinity included, unlike files
    with open(path, "wb") as file:
        np.savez(file, header=text, **arrays)


def first_threshold(header):
    """Where the thresholds of the first chained layer begin among the floats."""
    at = 0
    for (kind, shape), following in zip(header["shapes"], header["shapes"][1:], strict=False):
        if kind == "floats" and following == ["bits", shape]:
            return at
        at += int(np.prod(shape)) * (kind == "floats")
    raise AssertionError("no threshold in this network")


def write_arrays(path, **arrays):
    with open(path, "wb") as file:
        np.savez(file, **arrays)


RAW = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no network\n"),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "one array": lambda path: np.save(open(path, "wb"), np.ones(3)),
    "foreign arrays": lambda path: write_arrays(path, a=np.ones(3)),
    "pickle": lambda path: write_arrays(path, header=np.array([{}], object)),
    "no JSON": lambda path: write_arrays(path, header=np.frombuffer(b"{", np.uint8)),
    "a list": lambda path: write_arrays(path, header=np.frombuffer(b"[]", np.uint8)),
    "nested": lambda path: write_arrays(path, header=np.frombuffer(b"[" * 10**5, np.uint8)),
    "a zip": lambda path: zipfile.ZipFile(path, "w").writestr("floats.npy", b"x" * 99),
}
NEWER = {
    "newer": lambda header, arrays: header.update(format="hbn_ref packed 2"),
    "no format": lambda header, arrays: header.pop("format"),
    "a format in a list": lambda header, arrays: header.update(format=[deploy.FORMAT]),
}


def resized(name, change):
    return lambda header, arrays: arrays.update({name: change(arrays[name])})


REWRITTEN = {
    "no spec": lambda header, arrays: header.pop("spec"),
    "no classes": lambda header, arrays: header.pop("classes"),
    "no preprocessing": lambda header, arrays: header.pop("preprocessing"),
    "no shapes": lambda header, arrays: header.pop("shapes"),
    "shapes null": lambda header, arrays: header.update(shapes=None),
    "shapes short": lambda header, arrays: header["shapes"].pop(),
    "shapes long": lambda header, arrays: header["shapes"].append(["floats", [1]]),
    "shapes swapped": lambda header, arrays: header["shapes"].reverse(),
    "shapes of bits": lambda header, arrays: header["shapes"][0].__setitem__(0, "bits"),
    "classes a number": lambda header, arrays: header.update(classes=3),
    "preprocessing a number": lambda header, arrays: header.update(preprocessing=3),
    "no floats": lambda header, arrays: arrays.pop("floats"),
    "no bits": lambda header, arrays: arrays.pop("bits"),
    "members swapped": lambda header, arrays: arrays.update(floats=arrays["bits"], bits=arrays["floats"]),
    "one float less": resized("floats", lambda a: a[:-1]),
    "one float more": resized("floats", lambda a: np.append(a, np.float32(0))),
    "no float": resized("floats", lambda a: a[:0]),
    "one byte less": resized("bits", lambda a: a[:-1]),
    "one byte more": resized("bits", lambda a: np.append(a, np.uint8(0))),
    "float64": resized("floats", lambda a: a.astype(np.float64)),
    "big-endian": resized("floats", lambda a: a.astype(">f4")),
    "two axes": resized("floats", lambda a: a[:, None]),
    "no axis": resized("floats", lambda a: a[0]),
    "signed bytes": resized("bits", lambda a: a.astype(np.int8)),
    "more classes": lambda header, arrays: header["spec"].update(num_classes=4),
    "no classes at all": lambda header, arrays: header["spec"].update(num_classes=0),
    "classes -1": lambda header, arrays: header["spec"].update(num_classes=-1),
    "classes as text": lambda header, arrays: header["spec"].update(num_classes="3"),
    "input_size 0": lambda header, arrays: header["spec"].update(input_size=0),
    "input_size negative": lambda header, arrays: header["spec"].update(input_size=-8),
    "input_size huge": lambda header, arrays: header["spec"].update(input_size=10**9),
    "input_size beyond int64": lambda header, arrays: header["spec"].update(input_size=10**30),
    "in_channels 1": lambda header, arrays: header["spec"].update(in_channels=1),
    "wbin": lambda header, arrays: header["spec"].update(variant="wbin"),
    "last_layer": lambda header, arrays: header["spec"].update(last_layer="binary"),
    "width": lambda header, arrays: header["spec"].update(width=1e308),
    "width NaN": lambda header, arrays: header["spec"].update(width=float("nan")),
    "pad_value": lambda header, arrays: header["spec"].update(pad_value=2),
    "no definition": lambda header, arrays: header["spec"].update(definition=[]),
    "definition null": lambda header, arrays: header["spec"].update(definition=None),
    "definition shorter": lambda header, arrays: header["spec"]["definition"].pop(2),
    "unknown item": lambda header, arrays: header["spec"]["definition"][1].update(op="nothing"),
    "method": lambda header, arrays: header["spec"]["definition"][1].update(op="weights"),
    "dunder": lambda header, arrays: header["spec"]["definition"][1].update(op="_class__"),
    "op a number": lambda header, arrays: header["spec"]["definition"][1].update(op=3),
    "stride 0": lambda header, arrays: header["spec"]["definition"][2].update(stride=0),
    "pool stride 0": lambda header, arrays: header["spec"]["definition"][1].update(stride=0),
    "pool of nothing": lambda header, arrays: header["spec"]["definition"][1].update(size=0),
    "pool past the map": lambda header, arrays: header["spec"]["definition"][3].update(padding=2),
    "negative padding": lambda header, arrays: header["spec"]["definition"][2].update(padding=-1),
    "kernel 1": lambda header, arrays: header["spec"]["definition"][2].update(kernel=1, padding=0),
    "kernel -1": lambda header, arrays: header["spec"]["definition"][2].update(kernel=-1),
    "filters -1": lambda header, arrays: header["spec"]["definition"][2].update(channels=-1),
    "filters beyond int64": lambda header, arrays: header["spec"]["definition"][2].update(channels=2**62),
    "one name twice": lambda header, arrays: header["spec"]["definition"][2].update(name="first"),
    "empty fork": lambda header, arrays: header["spec"]["definition"].insert(1, concat("fork")),
    "threshold infinite": lambda header, arrays: arrays["floats"].__setitem__(first_threshold(header), np.inf),
    "threshold NaN": lambda header, arrays: arrays["floats"].__setitem__(first_threshold(header), np.nan),
    "threshold huge": lambda header, arrays: arrays["floats"].__setitem__(first_threshold(header), 2.0**31),
}


def zero_kernel(header, arrays):
    header["spec"]["definition"][0].update(kernel=0, padding=0)
    header["shapes"][0][1] = [0, 0, 2, 4]
    arrays["floats"] = arrays["floats"][72:].copy()


OPEN = {  # what a file may still do
    "threshold a half": lambda header, arrays: arrays["floats"].__setitem__(first_threshold(header), 0.5),
    "threshold beyond n + 1": lambda header, arrays: arrays["floats"].__setitem__(first_threshold(header), 1000),
    "scale NaN": lambda header, arrays: arrays["floats"].__setitem__(slice(72, 76), np.nan),
    "weight infinite": lambda header, arrays: arrays["floats"].__setitem__(0, np.inf),
    "bias NaN": lambda header, arrays: arrays["floats"].__setitem__(-1, np.nan),
    "unknown variant": lambda header, arrays: header["spec"].update(variant="hybrids", keep_real=[]),
    "fewer names": lambda header, arrays: header.update(classes=["cat"]),
    "more names": lambda header, arrays: header.update(classes=["cat", "dog", "cow", "hen"]),
    "names as one text": lambda header, arrays: header.update(classes="abc"),
    "names as numbers": lambda header, arrays: header.update(classes=[1, None, {}]),
    "preprocessing a list": lambda header, arrays: header.update(preprocessing=[["size", 8]]),
    "kernel 0": zero_kernel,
}


def assert_refused(path):
    with pytest.raises(files.FileError, match=r"packed\.npz") as error:
        deploy.load(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400 + len(str(path))


@pytest.mark.parametrize("damage", RAW)
def test_damaged_and_foreign_files_are_refused_in_one_line_that_names_them(damage, packed, tmp_path):
    path = tmp_path / "packed.npz"
    deploy.save(packed, path)
    RAW[damage](path)
    assert_refused(path)


@pytest.mark.parametrize("damage", [*NEWER, *REWRITTEN])
def test_files_that_contradict_themselves_are_refused_though_the_checksum_fits(damage, packed, tmp_path):
    path = tmp_path / "packed.npz"
    deploy.save(packed, path)
    rewrite(path, {**NEWER, **REWRITTEN}[damage])
    assert_refused(path)


@pytest.mark.parametrize("damage", OPEN)
def test_files_that_no_network_would_write_are_refused(damage, packed, tmp_path):
    path = tmp_path / "packed.npz"
    if damage == "unknown variant":
        packed = deploy.compile(trained(CHAIN, "wbin", steps=0), classes=["a", "b", "c"], preprocessing={"size": 8})
    deploy.save(packed, path)
    rewrite(path, OPEN[damage])
    assert_refused(path)


def test_rewriting_nothing_changes_nothing(packed, tmp_path):
    path = tmp_path / "packed.npz"
    deploy.save(packed, path)
    rewrite(path, lambda header, arrays: None)
    assert_identical(deploy.load(path), packed)


@pytest.mark.parametrize("key", ["spec", "classes", "preprocessing", "shapes", "checksum"])
def test_the_checksum_covers_the_header_and_both_blobs(key, packed, tmp_path):
    path = tmp_path / "packed.npz"
    deploy.save(packed, path)
    header, arrays = files.read_arrays(path, deploy.FORMAT)
    changed = {
        "spec": {**header["spec"], "seed": 1}, "classes": ["dog", "cat", "cow"], "preprocessing": {},
        "shapes": header["shapes"][::-1], "checksum": "0" * 64,
    }  # fmt: skip
    files.write_arrays(path, {**header, key: changed[key]}, arrays)
    with pytest.raises(files.FileError, match="checksum"):
        deploy.load(path)
    for name in ("floats", "bits"):
        other = arrays[name].copy()
        other[-1] += 1
        files.write_arrays(path, header, {**arrays, name: other})
        with pytest.raises(files.FileError, match="checksum"):
            deploy.load(path)


def peak_of_loading(path):
    tracemalloc.start()
    try:
        deploy.load(path)
    except files.FileError:
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    raise AssertionError("loads")


@pytest.mark.parametrize("place", [("channels", 0), ("kernel", 2)])
def test_a_small_file_that_claims_millions_of_weights_takes_no_memory(place, packed, tmp_path):
    path, (key, item) = tmp_path / "packed.npz", place
    deploy.save(packed, path)
    rewrite(path, lambda header, arrays: header["spec"]["definition"][item].update({key: 10**7, "padding": 10**7}))
    assert peak_of_loading(path) < 20e6


def test_a_small_file_that_unpacks_to_a_large_one_takes_no_memory(packed, tmp_path):
    path = tmp_path / "packed.npz"
    with open(path, "wb") as file:
        np.savez_compressed(file, header=np.frombuffer(b"{}", np.uint8), floats=np.zeros(10**7, np.float32))
    assert path.stat().st_size < 1e5 and peak_of_loading(path) < 20e6


def test_a_padding_that_no_memory_holds_is_refused(tmp_path):
    path = tmp_path / "packed.npz"
    deploy.save(deploy.compile(trained(BRANCHED, "fbin", steps=0)), path)
    rewrite(path, lambda header, arrays: header["spec"]["definition"][0].update(padding=10**6))
    assert_refused(path)


# ------------------------------------------------------------------------------------------------ fuzz


def original(definition, variant, **options):
    """(bytes of a file, images, logits)."""
    made = deploy.compile(trained(definition, variant, **options), classes=["a", "b", "c"], preprocessing={"size": 8})
    return made, images(made, 2), made(images(made, 2))


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    path, made = tmp_path_factory.mktemp("originals") / "packed.npz", {}
    cases = {"binary": (ONE_BINARY, "fbin"), "chain": (CHAIN, "fbin"), "branched": (BRANCHED, "hybrid")}
    for name, (definition, variant) in cases.items():
        options = {"keep_real": ["s1", "f3"], "last_layer": "binary"} if variant == "hybrid" else {}
        network, x, logits = original(definition, variant, steps=0, **options)
        deploy.save(network, path)
        made[name] = path.read_bytes(), x, logits
    return made, path


def refused_or_same(path, x, logits):
    try:
        loaded = deploy.load(path)
    except files.FileError as error:
        assert str(path) in str(error)
    else:
        assert np.array_equal(loaded(x), logits)


@given(
    which=st.sampled_from(["binary", "chain"]),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=4),
    tail=st.booleans(),
)
def test_flipped_bytes_never_give_another_network(originals, which, changes, tail):
    made, path = originals
    content, x, logits = made[which]
    content, directory = bytearray(content), content.index(b"PK\x01\x02")
    first = directory if tail else 0  # names, sizes and kinds of compression: the fragile part
    for share, change in changes:
        content[first + int(share * (len(content) - 1 - first))] ^= change
    path.write_bytes(content)
    refused_or_same(path, x, logits)


@given(
    how=st.sampled_from(["cut", "append", "prepend", "drop", "repeat", "insert", "move"]),
    a=st.floats(0, 1),
    b=st.floats(0, 1),
    junk=st.binary(min_size=1, max_size=100),
)
def test_cut_and_shifted_files_never_give_another_network(originals, how, a, b, junk):
    made, path = originals
    content, x, logits = made["binary"]
    low, high = sorted((int(a * len(content)), int(b * len(content))))
    changed = {
        "cut": content[:low], "append": content + junk, "prepend": junk + content,
        "drop": content[:low] + content[high:], "repeat": content[:high] + content[low:],
        "insert": content[:low] + junk + content[low:],
        "move": content[high:] + content[:low] + content[low:high],
    }  # fmt: skip
    path.write_bytes(changed[how])
    refused_or_same(path, x, logits)


@given(data=st.data())
def test_any_flipped_byte_of_a_member_never_gives_another_network(originals, data):
    """As above, in a zip whose own checks fit: NumPy's headers, the JSON text, the blobs."""
    made, path = originals
    content, x, logits = made["binary"]
    with zipfile.ZipFile(io.BytesIO(content)) as source:
        members = {name: bytearray(source.read(name)) for name in source.namelist()}
    for _ in range(data.draw(st.integers(1, 2))):
        member = members[data.draw(st.sampled_from(sorted(members)))]
        member[data.draw(st.integers(0, len(member) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        one, other = (data.draw(st.sampled_from(sorted(members))) for _ in range(2))
        members[one], members[other] = members[other], members[one]
    with zipfile.ZipFile(path, "w") as target:
        for name, member in members.items():
            target.writestr(name, bytes(member))
    refused_or_same(path, x, logits)


NUMBERS = [-1, 0, 1, 2, 3, 7, 255, 256, 10**5, 2**31, 2**40, 2**63, 10**30, -(2**63), 0.5, 1e308, float("inf"),
           float("nan")]  # fmt: skip
WORDS = ["", "map", "fbin", "wbin", "fprec", "hybrid", "paper", "binary", "conv", "classifier", "max_pool", "average",
         "relu", "residual", "concat", "dropout", "weights", "\n", "floats", "bits", "3"]  # fmt: skip
JUNK = st.one_of(
    st.sampled_from([*NUMBERS, *WORDS, None, True, False, [], {}, [[]], [1, 2], [0, 0], [3, 3, 3], [{}]]),
    st.recursive(st.integers(-3, 300) | st.sampled_from(WORDS), lambda inner: st.lists(inner, max_size=3)),
)


def places(value, found, inside=()):
    """Every (container, key) of a JSON value."""
    for key in range(len(value)) if isinstance(value, list) else list(value):
        found.append((value, key))
        if isinstance(value[key], (list, dict)):
            places(value[key], found)
    return found


def changed_header(data, header):
    """Change one to three places of a header: another value, none, one twice, two exchanged."""
    for _ in range(data.draw(st.integers(1, 3))):
        found = places(header, [])
        part, key = found[data.draw(st.integers(0, len(found) - 1))]
        how = data.draw(st.sampled_from(["replace", "replace", "replace", "remove", "copy", "neighbour"]))
        if how == "replace":
            part[key] = data.draw(JUNK)
        elif how == "remove":
            del part[key]
        else:
            other, place = found[data.draw(st.integers(0, len(found) - 1))]
            value = copy.deepcopy(other[place])
            if how == "copy" and isinstance(part, list):
                part.insert(key, value)
            else:
                part[key] = value


def computable(spec):
    """Whether a call of a network with a changed definition is small enough for a test: no map above 100 x 100."""
    numbers = [spec["input_size"], spec["num_classes"]]
    numbers += [value for part, key in places(spec["definition"], []) if key != "rate" for value in [part[key]]]
    return all(abs(number) <= 64 for number in numbers if isinstance(number, (int, float)))


@pytest.fixture
def little_memory():
    """2 GB more than now, so that a greedy bug fails and does not take the machine with it."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    try:
        size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    except OSError:
        pytest.skip("only Linux says how much memory a process has")
    resource.setrlimit(resource.RLIMIT_AS, (size + 2**31, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def check_changed_headers(originals, which, data):
    made, path = originals
    content, x, logits = made[which]
    path.write_bytes(content)
    spec = files.read_arrays(path, deploy.FORMAT)[0]["spec"]
    rewrite(path, lambda header, arrays: changed_header(data, header))
    try:
        loaded = deploy.load(path)
    except files.FileError as error:
        assert str(path) in str(error)
        return
    if loaded.spec == spec:
        assert np.array_equal(loaded(x), logits)
    elif computable(loaded.spec):
        out = loaded(images(loaded, 2))
        assert out.shape == (2, loaded.spec["num_classes"]) and out.dtype == np.float32


@pytest.mark.parametrize("which", ["binary", "chain", "branched"])
def test_a_changed_header_is_refused_or_gives_a_network_that_computes(which, originals, little_memory):
    @given(data=st.data())
    def changed_headers(data):
        check_changed_headers(originals, which, data)

    changed_headers()


@given(data=st.data())
def test_other_numbers_in_the_blobs_give_a_network_that_computes(originals, data):
    made, path = originals
    content, x, logits = made["chain"]
    path.write_bytes(content)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))

    def change(header, arrays):
        for name, array in arrays.items():
            chosen = rng.random(array.size) < data.draw(st.sampled_from([0.01, 0.3, 1]))
            array[chosen] = rng.integers(-128 if name == "floats" else 0, 128, array.size).astype(array.dtype)[chosen]

    rewrite(path, change)
    try:
        loaded = deploy.load(path)
    except files.FileError:
        return
    assert np.isfinite(loaded(x)).all()
    again = path.with_name("again.npz")
    deploy.save(loaded, again)
    assert_identical(deploy.load(again), loaded)


# ------------------------------------------------------------------------- the network that ships, commands


def sketch(name, seed, path):
    """A drawing of a class as a picture, black on white."""
    drawn = doodles.draw(name, np.random.default_rng([seed, doodles.CLASSES.index(name)]))
    Image.fromarray(255 - strokes.render(drawn, 144, width=3)).save(path)
    return drawn


@needs_jit
def test_the_networks_that_ship_are_small_and_know_new_doodles():
    paths = sorted(gallery.BUILT_IN.glob("*.npz"))
    assert [path.stem for path in paths] == ["fbin", "hybrid", "wbin"]
    assert sum(path.stat().st_size for path in paths) < 450_000
    drawn = [(name, doodles.draw(name, np.random.default_rng([100 + seed, doodles.CLASSES.index(name)])))
             for seed in range(10) for name in doodles.CLASSES]  # fmt: skip
    for path in paths:
        packed = deploy.load(path)
        assert packed.classes == list(doodles.CLASSES) and packed.none_of_these is not None
        x = np.concatenate([data_tools.prepare_strokes(lines, packed.preprocessing) for _, lines in drawn])
        found = [row[0][0] for row in deploy.best(packed, x, 1)]
        claimed = [(said, name) for said, (name, _) in zip(found, drawn, strict=True) if said != deploy.NONE]
        assert len(claimed) > 0.7 * len(drawn) and np.mean([said == name for said, name in claimed]) > 0.88, path.stem


@needs_jit
def test_predict_names_a_drawing_in_text_and_in_json(tmp_path, capsys):
    paths = [tmp_path / f"{name}.{end}" for name, end in (("sun", "png"), ("fish", "bmp"))]
    for path in paths:
        sketch(path.stem, 3, path)
    assert main(["predict", str(HYBRID), *map(str, paths)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(path) for path in paths]
    assert [line.split(": ")[1].split()[0] for line in lines] == ["sun", "fish"]
    assert main(["predict", "--json", str(HYBRID), *map(str, paths)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [len(row) for row in found.values()] == [5, 5] and found[str(paths[0])][0]["class"] == "sun"


@needs_jit
def test_predict_asks_several_networks_in_one_process(tmp_path, capsys):
    sketch("sun", 3, tmp_path / "sun.png")
    image = str(tmp_path / "sun.png")
    assert main(["predict", str(gallery.BUILT_IN / "wbin.npz"), str(HYBRID), image]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [[image, "WBin"], [image, "Hybrid"]]
    assert main(["predict", "--json", image]) == 0  # the built-in ones
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["WBin", "Hybrid", "FBin"]
    assert {rows[image][0]["class"] for rows in found.values()} == {"sun"}
    assert main(["predict", str(HYBRID)]) == 2 and "IMAGE" in capsys.readouterr().err


@needs_jit
def test_draw_serves_the_networks_that_ship_and_prepares_strokes_for_them(monkeypatch):
    served = []
    monkeypatch.setattr(draw, "serve", lambda *args, **options: served.append((args, options)))
    assert main(["draw", "--port", "8123", "--no-browser"]) == 0
    [((networks, prepare), options)] = served
    assert options == {"port": 8123, "open_browser": False, "rest": []}
    assert [shown.name for shown in networks] == ["WBin", "Hybrid", "FBin"]
    assert [sorted(shown.usual) for shown in networks] == [
        ["conv2", "conv3", "conv4", "conv5", "conv6"], ["conv5", "conv6"], [],
    ]  # fmt: skip
    drawn = doodles.draw("sun", np.random.default_rng(0))
    for shown in networks:
        x = prepare(drawn, shown.packed.preprocessing, 1.0)
        assert np.array_equal(x, data_tools.prepare_strokes(drawn, shown.packed.preprocessing))
        assert deploy.best(shown.packed, x, 1)[0][0][0] == "sun"


@needs_jit
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_predict_prints_any_name_on_any_terminal(tmp_path, encoding):
    sketch("sun", 3, tmp_path / "солнце.png")
    done = subprocess.run(
        [sys.executable, "-m", "hbn_ref", "predict", str(HYBRID), str(tmp_path / "солнце.png")],
        env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True, text=True, encoding="utf-8", timeout=300,
    )  # fmt: skip
    assert done.returncode == 0 and "sun" in done.stdout and not done.stderr
    assert ("солнце" in done.stdout) == (encoding == "utf-8")


def test_export_with_data_learns_to_doubt(tmp_path):
    about = data_tools.load("doodles", classes=["cup", "sun"], size=16).preprocessing
    model = models.build([models.conv("a", 2, "map"), models.classifier()], "fprec", num_classes=2, in_channels=1,
                         input_size=16)  # fmt: skip
    models.save(model, tmp_path / "model.npz", classes=["cup", "sun"], preprocessing=about)
    assert main(["export", str(tmp_path / "model.npz"), str(tmp_path / "out"), "--data", "doodles"]) == 0
    packed = deploy.load(tmp_path / "out.npz")
    data = data_tools.load("doodles", classes=["cup", "sun"], size=16)
    largest = packed(data.evaluation_batch(data.validation[0])).max(axis=1)
    assert packed.none_of_these == pytest.approx(np.quantile(largest, deploy.DOUBTED))


def test_export_makes_a_small_file_of_a_model_file(tmp_path, capsys):
    model = models.build("small-fbin", num_classes=3, in_channels=1, input_size=64)
    about = {"size": 64, "stored": 72, "channels": 1, "kind": "sketch", "mean": 0.1, "std": 1.0, "solid": [0.2, 0.5]}
    models.save(model, tmp_path / "model.npz", classes=["a", "b", "c"], preprocessing=about)
    assert main(["export", str(tmp_path / "model.npz"), str(tmp_path / "small")]) == 0
    assert "times smaller" in capsys.readouterr().out
    packed = deploy.load(tmp_path / "small.npz")
    assert packed.classes == ["a", "b", "c"] and packed.preprocessing == about


@pytest.mark.parametrize(
    "command", [["predict", "FILE", "missing.png"], ["predict", "missing.npz", "x.png"], ["export", "FILE", "out.npz"],
                ["draw", "missing.npz"], ["predict", "FILE", "text.png"]],
)  # fmt: skip
def test_wrong_files_are_refused_in_one_line(command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.png").write_text("no picture")
    assert main([str(HYBRID) if word == "FILE" else word for word in command]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
