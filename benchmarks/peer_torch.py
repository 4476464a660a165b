"""PyTorch on the CPU, float32, in both memory layouts: single convolutions, and whole networks from our definitions."""

import json
import sys

import numpy as np

from .peers import absent, serve


def _nchw(x, layout):
    x = torch.from_numpy(x).permute(0, 3, 1, 2)
    form = torch.channels_last if layout == "nhwc" else torch.contiguous_format
    return x.contiguous(memory_format=form)


def _in_layout(module, layout):
    return module.to(memory_format=torch.channels_last) if layout == "nhwc" else module


def convolution(arrays, padding, layout):
    """x (N, H, W, C), w (kh, kw, C, O)."""
    x = _nchw(arrays["x"], layout)
    module = nn.Conv2d(x.shape[1], arrays["w"].shape[3], arrays["w"].shape[:2], padding=padding, bias=False)
    module.weight.data = torch.from_numpy(arrays["w"]).permute(3, 2, 0, 1).contiguous()
    module = _in_layout(module, layout).eval()

    @torch.inference_mode()
    def call():
        return module(x)

    return call, call().permute(0, 2, 3, 1).contiguous().numpy()


# ------------------------------------------------------------------------------------------ networks


def _sum(body, shortcut):
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.shortcut = body, shortcut

        def forward(self, x):
            return self.body(x) + self.shortcut(x)

    return Residual()


def _conv(item, x, arrays):
    w = torch.from_numpy(arrays[item["name"] + ".w"]).permute(3, 2, 0, 1).contiguous()  # (O, C, kh, kw)
    bias = item["op"] == "classifier"
    module = nn.Conv2d(
        x.shape[1], w.shape[0], w.shape[2:], item.get("stride", 1), item.get("padding", 0), bias=bias
    )  # fmt: skip
    module.weight.data = w
    if bias:
        module.bias.data = torch.from_numpy(arrays[item["name"] + ".b"])
        return [module]
    norm = nn.BatchNorm2d(w.shape[0])
    for name, key in (("weight", "gamma"), ("bias", "beta"), ("running_mean", "mean"), ("running_var", "var")):
        getattr(norm, name).data = torch.from_numpy(arrays[f"{item['name']}.bn.{key}"].astype(np.float32))
    return [module, norm] + [nn.ReLU(inplace=True)] * item["relu"]


def network(definition, x, arrays):
    """The float network of a definition of `hbn_ref.models`, with the given weights; returns (module, its output)."""
    modules = []
    for item in definition:
        op = item["op"]
        if op in ("conv", "classifier"):
            made = nn.Sequential(*_conv(item, x, arrays))
        elif op == "residual":
            body, shortcut = (network(item[part], x, arrays)[0] for part in ("body", "shortcut"))
            made = _sum(body, shortcut)
        else:
            made = {
                "relu": lambda item: nn.ReLU(),
                "average": lambda item: nn.AdaptiveAvgPool2d(1),
                "dropout": lambda item: (nn.Dropout2d if item["per_channel"] else nn.Dropout)(item["rate"]),
                "max_pool": lambda item: nn.MaxPool2d(
                    item["size"], item["stride"], item["padding"], ceil_mode=item["ceil"]
                ),
            }[op](item)
        modules.append(made)
        with torch.no_grad():
            x = made.eval()(x)
    return nn.Sequential(*modules), x


def forward(arrays, definition, layout):
    """One evaluation forward pass of a whole network."""
    x = _nchw(arrays.pop("x"), layout)
    module = _in_layout(network(json.loads(definition), x, arrays)[0], layout).eval()

    @torch.inference_mode()
    def call():
        return module(x)

    return call, call().permute(0, 2, 3, 1).contiguous().numpy()


def step(arrays, definition, layout, lr):
    """One training step: forward, loss, backward, Adam. The result is the logits of the first."""
    x, labels = _nchw(arrays.pop("x"), layout), torch.from_numpy(arrays.pop("labels"))
    module = _in_layout(network(json.loads(definition), x, arrays)[0], layout).train()
    optimizer = torch.optim.Adam(module.parameters(), lr=lr)

    def call():
        optimizer.zero_grad()
        logits = module(x).flatten(1)
        nn.functional.cross_entropy(logits, labels).backward()
        optimizer.step()
        return logits

    return call, call().detach().numpy()


if __name__ == "__main__":
    try:
        import torch
        from torch import nn
    except ImportError as error:
        absent(error)
    else:
        torch.set_num_threads(int(sys.argv[1]))
        kernels = torch.backends.cpu.get_cpu_capability()
        serve(torch.__version__, kernels, {"convolution": convolution, "forward": forward, "step": step})
