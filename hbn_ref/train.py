"""Chapter 6, train: loss, optimisers, schedules, the step with binary weights, the loop, evaluation.

One step with binary weights (paper, section 3; XNOR-Net, algorithm 1):

1. subtract from each latent weight its mean over the input channels (`centre_and_clamp`);
2. clamp it to [-1, 1]: beyond, the straight-through window would hold it fast;
3. forward and backward with ``alpha sign(w)`` (the layers of chapter 4);
4. turn dL/dW~ into dL/dW (`binarize.weight_gradient`, called by the layer);
5. let the optimiser update the latent weights. It never sees a sign.

Everything random in epoch e comes from ``default_rng([seed, e])``: a run that was interrupted after any epoch and
goes on from its checkpoint takes the same steps as one that was not, bit for bit.
"""

import math
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

try:
    from tqdm.auto import tqdm
except ModuleNotFoundError:  # pip install hbn-ref without [study]: train in silence
    tqdm = None

from . import files, layers, memory, models
from .checks import one_of, real_number, same_shape, whole_number

CHECKPOINT_FORMAT = "hbn_ref checkpoint 1"


# --------------------------------------------------------------------------------------------------- loss


def _check_labels(labels, scores):
    labels = np.asarray(labels)
    if scores.ndim != 2 or labels.shape != (len(scores),) or len(labels) == 0:
        raise ValueError(f"labels: expected one for each row of logits, got {labels.shape} for {scores.shape}")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise ValueError(f"labels: expected whole numbers from 0 to {scores.shape[1] - 1}")
    return labels


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities, float64 (N, classes): ``exp(logits) / sum exp(logits)``, the largest taken off before exp."""
    logits = np.asarray(logits, np.float64)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def softmax_cross_entropy(
    logits: np.ndarray, labels: np.ndarray, target: np.ndarray | None = None
) -> tuple[float, np.ndarray]:
    """Mean cross-entropy of the softmax, and its gradient.

        L = -1/N sum_n sum_c t[n, c] log p[n, c],  p = softmax(logits),  dL/dlogits = (p - t) / N

    with t the one-hot labels, or ``target``.

    Parameters
    ----------
    logits : float (N, classes)
    labels : int (N,)
    target : float (N, classes), optional
        What to come close to in the place of the one-hot labels: shares of each class, with the sum 1 (`soft_target`).

    Returns
    -------
    loss : float
    dlogits : (N, classes), of the type of logits
    """
    logits = np.asarray(logits)
    labels = _check_labels(labels, logits)
    shifted = logits - logits.max(axis=1, keepdims=True)  # the same softmax, without overflow
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    if target is None:
        target = np.eye(logits.shape[1])[labels]
    target = np.asarray(target, logits.dtype)
    loss = -np.einsum("nc,nc->", target, log_p) / len(labels)
    return float(loss), (np.exp(log_p) - target) / logits.dtype.type(len(labels))


def soft_target(
    labels: np.ndarray, classes: int, smoothing: float = 0.0, teacher: np.ndarray | None = None,
    distillation: float = 0.0,
) -> np.ndarray:  # fmt: skip
    """What a network is to come close to: its labels, smoothed, mixed with what a teacher says of the same images.

        t = (1 - d) ((1 - s) onehot(label) + s / classes) + d softmax(teacher's logits)

    s is label smoothing (Szegedy et al. 2016), d distillation (Hinton et al. 2015, at temperature 1).

    Parameters
    ----------
    labels : int (N,)
    classes : int
    smoothing, distillation : float from 0 to 1
    teacher : float (N, classes), optional
        Logits.

    Returns
    -------
    float32 (N, classes)
    """
    labels = _check_labels(labels, np.empty((len(labels), classes)))
    own = (1 - smoothing) * np.eye(classes)[labels] + smoothing / classes
    if teacher is not None:
        same_shape("teacher", teacher, own.shape)
        own = (1 - distillation) * own + distillation * softmax(teacher)
    return own.astype(np.float32)


# --------------------------------------------------------------------------------------------- optimisers


class Optimizer:
    """Updates every parameter of a model from its gradients, in place.

    ``weight_decay`` adds ``weight_decay * w`` to the gradient of the real convolutions' weights: latent weights
    of binary layers are only as good as their signs, and pulling them to 0 makes the signs flip.
    """

    slots: tuple[str, ...] = ()  # names of the running arrays kept for each parameter
    update: Callable[..., None]  # each method's own: (w, g, the running arrays), all but g changed in place

    def __init__(self, lr: float, weight_decay: float = 0.0) -> None:
        self.lr, self.weight_decay, self.steps = lr, weight_decay, 0
        self.running: dict[str, list[np.ndarray]] = {}

    def step(self, model: layers.Layer) -> None:
        """One update of all parameters."""
        self.steps += 1
        for name, layer, key in model.parameters():
            w, g = layer.params[key], layer.grads[key]
            if self.weight_decay and key == "w" and layer.weights == "real":
                g = g + self.weight_decay * w
            if name not in self.running:
                self.running[name] = [np.zeros_like(w) for _ in self.slots]
            self.update(w, g, *self.running[name])

    def state(self) -> dict[str, Any]:
        """Return {name: array} of all that the next step depends on."""
        arrays = {f"{n}/{s}": a for n, own in self.running.items() for s, a in zip(self.slots, own, strict=True)}
        return {**arrays, "steps": np.int64(self.steps)}

    def load_state(self, state: dict[str, Any], names: Iterable[str] | None = None) -> None:
        """Take back what `state` returned; with ``names``, of all these parameters, or a KeyError."""
        steps = int(state["steps"])
        if names is None:
            names = dict.fromkeys(full.rpartition("/")[0] for full in state if full != "steps")
        self.running = {name: [state[f"{name}/{slot}"].copy() for slot in self.slots] for name in names}
        self.steps = steps


class SGD(Optimizer):
    """Stochastic gradient descent: ``v = momentum v + g; w -= lr v``, or with Nesterov ``w -= lr (g + momentum v)``."""

    slots = ("velocity",)

    def __init__(
        self, lr: float = 0.1, momentum: float = 0.9, nesterov: bool = False, weight_decay: float = 0.0
    ) -> None:
        super().__init__(lr, weight_decay)
        self.momentum, self.nesterov = momentum, nesterov

    def update(self, w: np.ndarray, g: np.ndarray, velocity: np.ndarray) -> None:
        velocity *= self.momentum
        velocity += g
        w -= self.lr * (g + self.momentum * velocity if self.nesterov else velocity)


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015).

    m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  w -= lr m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)
    """

    slots = ("m", "v")

    def __init__(
        self, lr: float = 0.002, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0
    ) -> None:
        super().__init__(lr, weight_decay)
        self.betas, self.eps = betas, eps

    def update(self, w: np.ndarray, g: np.ndarray, m: np.ndarray, v: np.ndarray) -> None:
        (b1, b2), t = self.betas, self.steps
        m += (1 - b1) * (g - m)
        v += (1 - b2) * (g * g - v)
        root = np.sqrt(v / (1 - b2**t))
        root += self.eps
        w -= (self.lr / (1 - b1**t)) * m / root


OPTIMIZERS = {"adam": Adam, "sgd": SGD}


# ---------------------------------------------------------------------------------------------- schedules


def constant(epoch: float, epochs: int) -> float:
    """The same rate all the time."""
    return 1.0


def cosine(epoch: float, epochs: int) -> float:
    """Half a cosine from 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * epoch / epochs))


def step(epoch: float, epochs: int, factor: float = 0.1) -> float:
    """A tenth after half of the epochs, a hundredth after three quarters."""
    return factor ** sum([epoch >= epochs / 2, epoch >= epochs * 3 / 4])


def halving(epoch: float, epochs: int, every: int = 50, floor: float = 0.025) -> float:
    """Halved every 50 epochs down to a fortieth, as the paper's authors do (0.002 to 5e-5)."""
    return max(0.5 ** (epoch // every), floor)


SCHEDULES = {"constant": constant, "cosine": cosine, "step": step, "halving": halving}


# ------------------------------------------------------------------------------------------------ one step


def centre_and_clamp(model: layers.Layer) -> None:
    """Steps 1 and 2 above, on the latent weights of all binary layers, in place."""
    for layer in model.walk():
        if isinstance(layer, layers.BinaryWeightConv):
            w = layer.params["w"]
            w -= w.mean(axis=2, keepdims=True)
            np.clip(w, -1, 1, out=w)


@np.errstate(over="ignore", invalid="ignore")  # what they would warn of stops the step below, with its place
def train_step(
    model: layers.Layer, x: np.ndarray, labels: np.ndarray, optimizer: Optimizer,
    target: Callable[[np.ndarray, np.ndarray, int], np.ndarray] | None = None,
) -> tuple[float, np.ndarray]:  # fmt: skip
    """One step on one batch: x float32 (N, H, W, C), labels (N,). Returns (loss, logits).

    ``target``, a function (x, labels, classes), makes what the loss comes close to in the place of one-hot labels.
    """
    centre_and_clamp(model)
    try:
        logits = model.forward(x, training=True)
        wanted = None if target is None else target(x, labels, logits.shape[1])
        loss, dlogits = softmax_cross_entropy(logits, labels, wanted)
    except ValueError:  # the sign of a NaN, or a mistake of the caller's
        where = first_not_finite(model, x)
        if where is None:
            raise
        raise FloatingPointError(f"step {optimizer.steps + 1}: NaN or infinity in {where}") from None
    if not np.isfinite(loss):
        where = first_not_finite(model, x) or "the loss"
        raise FloatingPointError(f"step {optimizer.steps + 1}: the loss is {loss}; NaN or infinity in {where}")
    model.backward(dlogits)
    optimizer.step(model)
    for name, value in reversed(model.state().items()):  # backward comes to the last layer first
        if not np.isfinite(value).all():
            raise FloatingPointError(f"step {optimizer.steps}: NaN or infinity in {name} after the update")
    return loss, logits


def first_not_finite(model: layers.Layer, x: np.ndarray) -> str | None:
    """Say where a NaN or an infinity first appears in a forward pass: the input, a weight or the output of a layer."""

    class Found(Exception):
        pass

    def look_before(layer, value):
        if not np.isfinite(value).all():
            raise Found(f"the input of {layer.name}")
        for key, own in layer.params.items():
            if not np.isfinite(own).all():
                raise Found(f"{layer.name}.{key}")

    def look_after(layer, value):
        if not np.isfinite(value).all():
            raise Found(f"the output of {layer.name}")

    try:
        with layers.watching(model, look_before), layers.watching(model, look_after, output=True):
            model.forward(x, training=True)
    except Found as found:
        return str(found)
    except ValueError:
        return None
    return None


def binary_signs(model: layers.Layer) -> dict[str, np.ndarray]:
    """Return {name: bool array} of the signs of all binary weights."""
    binary = (layer for layer in model.walk() if isinstance(layer, layers.BinaryWeightConv))
    return {layer.name: layer.params["w"] >= 0 for layer in binary}


def flip_ratio(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> float:
    """Share of binary weights whose sign differs between two results of `binary_signs`; 0 where there are none."""
    total = sum(signs.size for signs in before.values())
    return sum(int((before[name] != after[name]).sum()) for name in before) / total if total else 0.0


# ------------------------------------------------------------------------------------------------ the loop


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
        See `soft_target`; the second counts where there is a teacher.
    teacher : layers.Sequential or None
        A trained network that sees the same batches.
    prepare : function (images, rng) -> float32 (B, H, W, C), or None
        Augmentation and normalisation of a batch; None where images are already what the model takes.
    validate : function (model) -> dict, or None
        Called after each epoch; what it returns is added to the history.
    checkpoint : path or None
        Written after each epoch. A run started again with the same settings goes on from it.
    on_epoch : function (row of the history), or None

    Returns
    -------
    history : list of dict
        An entry an epoch: epoch, loss, top1 (on the augmented training images, per cent), flip_ratio (share of binary
        weights whose sign changed during the epoch), lr, seconds, and what ``validate`` returned.

    Raises
    ------
    FloatingPointError
        The loss, or a weight, is no longer finite; the message names the step and the layer. No checkpoint holds it.
    files.FileError
        The checkpoint belongs to a run with other settings, or is damaged.
    """
    one_of("optimizer", optimizer, tuple(OPTIMIZERS))
    one_of("schedule", schedule, tuple(SCHEDULES))
    images, labels = _pairs(images, labels)
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
    _ask_for_memory(model, min(batch, len(images)), len(method.slots))
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


def _ask_for_memory(model, batch, slots=None):
    """Raise a ValueError where a step (a forward pass without ``slots``) of a built model would take too much."""
    if isinstance(model, layers.Sequential) and model.spec is not None:
        memory.ask(f"batch: {batch} images at once", models.bytes_needed(model, batch, slots))


def _checksum(*arrays):
    total = 0
    for array in arrays:
        total = zlib.crc32(np.ascontiguousarray(array).data, total)
    return total


def _pairs(images, labels):
    images, labels = np.asarray(images), np.asarray(labels)
    if labels.ndim != 1 or len(images) != len(labels) or len(images) == 0:
        raise ValueError(f"labels: expected one for each image, got {labels.shape} for {len(images)} images")
    return images, labels


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
    centre_and_clamp(model)  # so that what is judged and saved is what the next step would compute with
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


# ---------------------------------------------------------------------------------------------- evaluation


def batches(
    images: np.ndarray, batch: int, prepare: Callable[[np.ndarray], np.ndarray] | None = None
) -> Iterator[np.ndarray]:
    """Yield float32 batches (B, H, W, C), or (crops, B, H, W, C) where ``prepare`` makes several crops."""
    whole_number("batch", batch)
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        yield part if prepare is None else prepare(part)


def evaluate(
    model: layers.Sequential | Callable[[np.ndarray], np.ndarray], images: np.ndarray, labels: np.ndarray, *,
    prepare: Callable[[np.ndarray], np.ndarray] | None = None, batch: int = 64,
) -> dict[str, Any]:  # fmt: skip
    """Loss and accuracy of a model.

    Parameters
    ----------
    model : layers.Sequential, or a function from a batch to logits, such as deploy.PackedNetwork
    images, labels : arrays (N, ...), int (N,)
    prepare : function (images) -> float32 (B, H, W, C) or (crops, B, H, W, C), or None
        With several crops (ten, say) the class probabilities are averaged over them.

    Returns
    -------
    dict
        top1, top5 (per cent; top5 with fewer than five classes is 100), loss, count, hits (bool (N,): each image's
        first guess is right)
    """
    images, labels = _pairs(images, labels)
    loss, hits, hits5, start = 0.0, [], 0, 0
    forward = model.forward if isinstance(model, layers.Sequential) else model
    _ask_for_memory(model, min(batch, len(images)))
    with layers.packed_weights(model) if isinstance(model, layers.Sequential) else nullcontext():
        for x in batches(images, batch, prepare):
            p = _probabilities(forward, x)
            y = _check_labels(labels[start : start + len(p)], p)
            start += len(p)
            own = p[np.arange(len(y)), y]
            first = np.arange(p.shape[1]) < y[:, None]  # of equals the first class is taken, as argmax does
            rank = ((p > own[:, None]) | ((p == own[:, None]) & first)).sum(axis=1)
            rank[~np.isfinite(own)] = p.shape[1]
            hits.append(rank == 0)
            hits5 += int((rank < 5).sum())
            loss -= float(np.log(np.maximum(own, 1e-30)).sum())
    n, first_hits = len(labels), np.concatenate(hits)
    top1, top5 = 100 * int(first_hits.sum()) / n, 100 * hits5 / n
    return {"top1": top1, "top5": top5, "loss": loss / n, "count": n, "hits": first_hits}


def _probabilities(forward, x):
    if x.ndim == 5:
        return np.mean([_probabilities(forward, crop) for crop in x], axis=0)
    return softmax(forward(x))


def recalibrate_batchnorm(
    model: layers.Layer, images: np.ndarray, *, prepare: Callable[[np.ndarray], np.ndarray] | None = None,
    batch: int = 64,
) -> None:  # fmt: skip
    """Set BatchNorm's running statistics to those of a whole pass, with the present weights.

    Useful after weights change without training (alpha set to 1, say), and in binary networks, whose statistics move
    with each flip. Dropout is off during the pass. Each batch is normalised by its own statistics on the way, as in
    training: shuffle images that come class by class. ``prepare`` as in `evaluate`, one crop.
    """
    norms = [layer for layer in model.walk() if isinstance(layer, layers.BatchNorm)]
    drops = [(layer, layer.rate) for layer in model.walk() if isinstance(layer, layers.Dropout)]
    sums: dict[str, tuple[int, Any, Any]] = {}

    def look(layer, x):
        count, total, squares = sums.get(layer.name, (0, 0.0, 0.0))
        total = total + x.sum(axis=(0, 1, 2), dtype=np.float64)
        squares = squares + np.einsum("nhwc,nhwc->c", x, x, dtype=np.float64)
        sums[layer.name] = count + x.size // x.shape[-1], total, squares

    try:
        for drop, _ in drops:
            drop.rate = 0.0
        with layers.watching(model, look, layers.BatchNorm):
            for x in batches(images, batch, prepare):
                model.forward(x, training=True)
    finally:
        for drop, rate in drops:
            drop.rate = rate
        for layer in model.walk():
            layer.cache = None
    for norm in norms:
        count, total, squares = sums[norm.name]
        mean = total / count
        norm.buffers["mean"][...] = mean
        norm.buffers["var"][...] = np.maximum(squares - count * mean * mean, 0) / max(count - 1, 1)
