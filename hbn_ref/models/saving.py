"""The file of a trained network: definition, weights, class names, preprocessing."""

from collections.abc import Sequence
from typing import Any

from .. import files, layers
from .building import from_spec
from .sizes import numbers, spec_of

FORMAT = "hbn_ref model 1"


def _check_labels(spec, classes, preprocessing):
    if len(classes) != spec["num_classes"]:
        raise ValueError(f"classes: expected {spec['num_classes']} names, got {len(classes)}")
    if preprocessing.get("size") != spec["input_size"]:
        raise ValueError(f"preprocessing: expected size {spec['input_size']}, got {preprocessing.get('size')!r}")


def check_preprocessing(trained: dict[str, Any], found: dict[str, Any]) -> None:
    """Raise a ValueError unless images are prepared like those that a network was trained on."""
    for key in ("channels", "kind", "stored", "mean", "std", "solid"):
        if trained.get(key) != files.plain(found.get(key)):
            raise ValueError(
                f"data: prepared with {key} {found.get(key)}, the network was trained with {trained.get(key)}"
            )


def save(
    model: layers.Sequential, path: files.PathLike, *, classes: Sequence[str], preprocessing: dict[str, Any]
) -> None:
    """Write a network made by `build` to ``path`` (.npz): definition, weights, class names, preprocessing."""
    spec = spec_of(model)
    _check_labels(spec, classes, preprocessing)
    header = {"format": FORMAT, "spec": spec, "classes": list(classes), "preprocessing": preprocessing}
    files.write_arrays(path, header, model.state())


def load(path: files.PathLike) -> tuple[layers.Sequential, list[str], dict[str, Any]]:
    """Read what `save` wrote: (model, classes, preprocessing).

    Raises
    ------
    files.FileError
        Missing, damaged, or not a model file.
    """
    header, arrays = files.read_arrays(path, FORMAT)
    try:
        if numbers(from_spec(header["spec"], init=False)) != sum(array.size for array in arrays.values()):
            raise ValueError("its arrays are not those of its network")  # before memory is taken for what it claims
        model = from_spec(header["spec"])
        model.load_state(arrays)
        _check_labels(model.spec, header["classes"], header["preprocessing"])
        return model, header["classes"], header["preprocessing"]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise files.FileError(f"{path}: damaged, or not a model file ({error})") from None
