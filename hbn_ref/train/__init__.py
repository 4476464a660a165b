"""Chapter 6, train: loss, optimisers, schedules, the step with binary weights, the loop, evaluation.

One step with binary weights (paper, section 3; XNOR-Net, algorithm 1):

1. subtract from each latent weight its mean over the input channels (`centre_and_clamp`);
2. clamp it to [-1, 1]: beyond these limits the straight-through estimator passes no gradient, and it could not return;
3. forward and backward with ``alpha sign(w)`` (the layers of chapter 4);
4. turn dL/dW~ into dL/dW (`binarize.weight_gradient`, called by the layer);
5. let the optimiser update the latent weights. It never sees a sign.

`loss` and `optimizers` hold the parts of a step, `steps` one step, `loop` the epochs and their checkpoints,
`evaluation` what comes after training.

Everything random in epoch e comes from ``default_rng([seed, e])``. So a run that was interrupted and goes on from its
checkpoint takes the same steps as one that was not, bit for bit.
"""

from .evaluation import batches, evaluate, recalibrate_batchnorm
from .loop import CHECKPOINT_FORMAT, check_settings, fit
from .loss import soft_target, softmax, softmax_cross_entropy
from .optimizers import OPTIMIZERS, SCHEDULES, SGD, Adam, Optimizer, constant, cosine, halving, step
from .steps import binary_signs, centre_and_clamp, first_not_finite, flip_ratio, train_step

__all__ = [
    "CHECKPOINT_FORMAT",
    "OPTIMIZERS",
    "SCHEDULES",
    "SGD",
    "Adam",
    "Optimizer",
    "batches",
    "binary_signs",
    "centre_and_clamp",
    "check_settings",
    "constant",
    "cosine",
    "evaluate",
    "first_not_finite",
    "fit",
    "flip_ratio",
    "halving",
    "recalibrate_batchnorm",
    "soft_target",
    "softmax",
    "softmax_cross_entropy",
    "step",
    "train_step",
]
