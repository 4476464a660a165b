"""Top floor, recipe: what the published studies have in common."""

from typing import Any

SEEDS = (0, 1, 2)
RECIPE: dict[str, Any] = {
    "model": "small", "epochs": 60, "batch": 64, "lr": 0.003, "distillation": 0.5, "start": "wbin",
}  # fmt: skip
AUGMENTATION = {"area": (0.6, 1.1), "rotation": 12.0, "elastic": 2.0}
