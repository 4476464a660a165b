"""The optimisers SGD and Adam, and the schedules of their learning rate."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .. import layers


class Optimizer:
    """Updates every parameter of a model from its gradients, in place.

    ``weight_decay`` adds ``weight_decay * w`` to the gradient of the weights of real convolutions. It leaves latent
    weights of binary layers alone: only their signs count, and pulling them to 0 makes the signs flip.
    """

    slots: tuple[str, ...] = ()  # names of the running arrays kept for each parameter
    update: Callable[..., None]  # each method's own: (w, g, running arrays); it changes all but g in place

    def __init__(self, lr: float, weight_decay: float = 0.0) -> None:
        self.lr, self.weight_decay, self.steps = lr, weight_decay, 0
        self.running: dict[str, list[np.ndarray]] = {}

    def step(self, model: layers.Layer) -> None:
        """Update all parameters once."""
        self.steps += 1
        for name, layer, key in model.parameters():
            w, g = layer.params[key], layer.grads[key]
            if self.weight_decay and key == "w" and layer.weights == "real":
                g = g + self.weight_decay * w
            if name not in self.running:
                self.running[name] = [np.zeros_like(w) for _ in self.slots]
            self.update(w, g, *self.running[name])

    def state(self) -> dict[str, Any]:
        """Return {name: array} of everything that the next step depends on."""
        arrays = {f"{n}/{s}": a for n, own in self.running.items() for s, a in zip(self.slots, own, strict=True)}
        return {**arrays, "steps": np.int64(self.steps)}

    def load_state(self, state: dict[str, Any], names: Iterable[str] | None = None) -> None:
        """Take back what `state` returned; a KeyError if it lacks one of ``names``, where these are given."""
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
    """The same rate in every epoch."""
    return 1.0


def cosine(epoch: float, epochs: int) -> float:
    """Half a cosine from 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * epoch / epochs))


def step(epoch: float, epochs: int, factor: float = 0.1) -> float:
    """A tenth after half of the epochs, a hundredth after three quarters."""
    return factor ** sum([epoch >= epochs / 2, epoch >= epochs * 3 / 4])


def halving(epoch: float, epochs: int, every: int = 50, floor: float = 0.025) -> float:
    """Halved every 50 epochs, down to a fortieth: from 0.002 to 5e-5, as in the authors' code."""
    return max(0.5 ** (epoch // every), floor)


SCHEDULES = {"constant": constant, "cosine": cosine, "step": step, "halving": halving}
