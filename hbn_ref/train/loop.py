"""The loop over epochs, its history and its checkpoints."""

import math
import time
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

try:
    from tqdm.auto import tqdm
except ModuleNotFoundError:  # pip install hbn-ref without [study]: train in silence
    tqdm = None

from .. import files, layers
from ..checks import one_of, real_number, whole_number
from .loss import check_prepared, pairs, soft_target
from .optimizers import OPTIMIZERS, SCHEDULES
from .steps import ask_for_memory, binary_signs, centre_and_clamp, flip_ratio, train_step

CHECKPOINT_FORMAT = "hbn_ref checkpoint 1"


def fit(
    model: layers.Sequential, images: np.ndarray, labels: np.ndarray, *, epochs: int, batch: int = 64,
    lr: float | None = None, optimizer: str = "adam", schedule: str = "cosine", weight_decay: float = 0.0,
    smoothing: float = 0.0, teacher: layers.Sequential | None = None, distillation: float = 0.5, seed: int = 0,
    prepare: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None,
    validate: Callable[[layers.Sequential], dict[str, Any]] | None = None, checkpoint: files.PathLike | None = None,
    progress: bool = True, on_epoch: Callable[[dict[str, Any]], Any] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Train a model in place.

    Parameters
    ----------
    model : layers.Sequential
    images, labels : arrays (N, ...), int (N,)
    epochs, batch : int
    lr : float or None
        None takes the optimiser's default.
    optimizer : {"adam", "sgd"}
    schedule : {"constant", "cosine", "step", "halving"}
    smoothing, distillation : float from 0 to 1
        See `soft_target`; without a teacher there is no distillation.
    teacher : layers.Sequential or None
        A trained network that sees the same batches.
    prepare : function (images, rng) -> float32 (B, H, W, C), or None
        Augments and normalises a batch; None if the images are already what the model takes.
    validate : function (model) -> dict, or None
        Called after each epoch; the history gets what it returns.
    checkpoint : path or None
        Written after each epoch. A run that is started again with the same settings goes on from it.
    on_epoch : function (row of the history), or None

    Returns
    -------
    history : list of dict
        One entry per epoch: epoch, loss, top1 (per cent, on the augmented training images), flip_ratio (share of
        binary weights whose sign changed during the epoch), lr, seconds, and what ``validate`` returned.

    Raises
    ------
    FloatingPointError
        The loss or a weight is no longer finite; the message names the step and the layer. No checkpoint holds it.
    files.FileError
        The checkpoint belongs to a run with other settings, or is damaged.
    """
    one_of("optimizer", optimizer, tuple(OPTIMIZERS))
    one_of("schedule", schedule, tuple(SCHEDULES))
    images, labels = pairs(images, labels)
    check_prepared(images, prepare)
    check_settings(epochs, batch, lr, weight_decay, seed, smoothing, distillation)
    method = OPTIMIZERS[optimizer](weight_decay=weight_decay, **({} if lr is None else {"lr": lr}))
    settings = {
        "epochs": epochs, "batch": batch, "lr": method.lr, "optimizer": optimizer, "schedule": schedule,
        "weight_decay": weight_decay, "seed": seed, "images": len(images), "spec": model.spec, "smoothing": smoothing,
        "distillation": distillation if teacher else 0.0,
    }  # fmt: skip
    if checkpoint is not None:
        settings["checksum"] = _checksum(images, labels)
        settings["teacher"] = _checksum(*(() if teacher is None else teacher.state().values()))
    ask_for_memory(model, min(batch, len(images)), len(method.slots))
    history = _resume(checkpoint, model, method, settings)
    peak = settings["lr"]
    target = None
    if smoothing or teacher is not None:

        def target(x, own, classes):
            said = None if teacher is None else teacher.forward(x)
            return soft_target(own, classes, smoothing, said, distillation)

    title = model.spec["variant"] if model.spec else "training"
    bar = None
    if progress and tqdm is not None:
        bar = tqdm(total=epochs, initial=len(history), desc=title, unit="epoch")
    with nullcontext() if bar is None else bar:
        for epoch in range(len(history), epochs):
            count = -(-len(images) // batch)
            rates = [peak * SCHEDULES[schedule](epoch + i / count, epochs) for i in range(count)]
            rng = np.random.default_rng([seed, epoch])
            row = _epoch(model, images, labels, method, rates, batch, rng, prepare, target)
            row = {"epoch": epoch + 1, **row, **(validate(model) if validate else {})}
            for key, value in row.items():
                if isinstance(value, float) and not math.isfinite(value):
                    raise FloatingPointError(f"epoch {epoch + 1}: {key} is {value}; it diverges, choose a smaller lr")
            history.append(row)
            _save_checkpoint(checkpoint, model, method, settings, history)
            if bar is not None:
                bar.set_postfix({key: f"{row[key]:.3g}" for key in ("loss", "top1", "val_top1") if key in row})
                bar.update()
            if on_epoch:
                on_epoch(row)
    return history


def _checksum(*arrays):
    total = 0
    for array in arrays:
        total = zlib.crc32(np.ascontiguousarray(array).data, total)
    return total


def check_settings(
    epochs: int, batch: int, lr: float | None, weight_decay: float, seed: int, smoothing: float = 0.0,
    distillation: float = 0.0,
) -> None:  # fmt: skip
    """Raise a ValueError that names the first bad setting of a training."""
    whole_number("epochs", epochs)
    whole_number("batch", batch)
    whole_number("seed", seed, 0)
    real_number("weight_decay", weight_decay)
    for name, share in (("smoothing", smoothing), ("distillation", distillation)):
        real_number(name, share)
        if share > 1:
            raise ValueError(f"{name}: expected a share from 0 to 1, got {share}")
    if lr is not None:
        real_number("lr", lr)


def _epoch(model, images, labels, optimizer, rates, batch, rng, prepare, target):
    started = time.perf_counter()
    for layer in model.walk():
        if isinstance(layer, layers.Dropout):
            layer.rng = rng
    before = binary_signs(model)
    order = rng.permutation(len(images))
    total, correct = 0.0, 0
    for number, rate in enumerate(rates):
        index = order[number * batch : (number + 1) * batch]
        x = images[index] if prepare is None else prepare(images[index], rng)
        optimizer.lr = rate
        loss, logits = train_step(model, x, labels[index], optimizer, target)
        total += loss * len(index)
        correct += int((logits.argmax(axis=1) == labels[index]).sum())
    centre_and_clamp(model)  # judge and save the weights that the next step would compute with
    return {
        "loss": total / len(order), "top1": 100 * correct / len(order),
        "flip_ratio": flip_ratio(before, binary_signs(model)), "lr": float(optimizer.lr),
        "seconds": time.perf_counter() - started,
    }  # fmt: skip


def _save_checkpoint(path, model, optimizer, settings, history):
    if path is None:
        return
    header = {"format": CHECKPOINT_FORMAT, "settings": settings, "history": history}
    arrays = {f"model/{name}": value for name, value in model.state().items()}
    arrays |= {f"optimizer/{name}": value for name, value in optimizer.state().items()}
    files.write_arrays(path, header, arrays)


def _resume(path, model, optimizer, settings):
    if path is None or not Path(path).exists():
        return []
    header, arrays = files.read_arrays(path, CHECKPOINT_FORMAT)
    try:
        theirs, history = header["settings"], list(header["history"])
        differing = [key for key in settings if theirs.get(key) != files.plain(settings[key])]
        if differing:
            names = ", ".join(differing)
            raise files.FileError(f"{path}: of a run with other settings ({names}); delete it or write elsewhere")
        parts: dict[str, dict[str, np.ndarray]] = {"model": {}, "optimizer": {}}
        for name, value in arrays.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = value
        optimizer.load_state(parts["optimizer"], [name for name, _, _ in model.parameters()])
        model.load_state(parts["model"])
    except files.FileError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise files.FileError(f"{path}: a damaged checkpoint ({error}); delete it to start again") from None
    return history
