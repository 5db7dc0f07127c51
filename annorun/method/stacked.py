"""A network of its own for each task of a batch, all run at once.

The weights of a task are a row of one tensor; the convolutions of a task are a group of channels.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d

# by name; in a batch, with a row for each task
Weights = dict[str, Tensor]


def for_each(n_tasks: int, value: Tensor) -> Tensor:
    """Return a row of its own for each task."""
    return value.expand(n_tasks, *value.shape).clone(memory_format=torch.contiguous_format)


def by_task(weights: Weights) -> list[Weights]:
    """Return the weights of each task."""
    rows = zip(*(w.unbind() for w in weights.values()), strict=True)
    return [dict(zip(weights, row, strict=True)) for row in rows]


def linear(x: Tensor, weights: Weights) -> Tensor:
    """Return (T, N, out) of (T, N, in): weight (T, out, in) and bias (T, out)."""
    return torch.baddbmm(weights["bias"].unsqueeze(1), x, weights["weight"].mT)


def stacked(net: nn.Module, weights: Weights, x: Tensor, n_support: int, fixed: bool) -> Tensor:
    """Return what each task's own weights of a network make of its inputs, (T, N, M).

    Args:
        net: a chain of layers, its own weights unread.
        weights: by the names of its parameters.
        x: (T, N, ...) inputs.
        n_support: how many of the N normalise all.
        fixed: they are normalised by what the network saw in training instead.

    Raises:
        TypeError: the network has another kind of layer with weights.
    """
    n_tasks, image = len(x), x.dim() == 5
    if image:
        # (N, T * channels, height, width); last, as convolutions on a processor are faster so
        x = x.transpose(0, 1).flatten(1, 2).contiguous(memory_format=torch.channels_last)
    for name, layer in net.named_children():
        own = {key: weights[f"{name}.{key}"] for key, _ in layer.named_parameters()}
        if isinstance(layer, nn.Conv2d):
            kernel, bias = own["weight"].flatten(0, 1), own["bias"].flatten()
            x = conv2d(x, kernel, bias, layer.stride, layer.padding, groups=n_tasks)
        elif isinstance(layer, nn.BatchNorm2d):
            x = normalised(layer, own, x, n_support, fixed)
        elif isinstance(layer, nn.Linear):
            x = linear(x, own)
        elif own:
            raise TypeError(f"{type(layer).__name__}: has weights, and no form for many tasks")
        elif not isinstance(layer, nn.Flatten):
            x = layer(x)
    return x.reshape(len(x), n_tasks, -1).transpose(0, 1) if image else x


def normalised(
    layer: nn.BatchNorm2d,
    own: Weights,  # (T, channels)
    x: Tensor,  # (N, T * channels, height, width)
    n_support: int,
    fixed: bool,
) -> Tensor:  # (N, T * channels, height, width)
    """Return a batch normalised by the layer's own statistics if fixed, else by its support's."""
    scale, shift = own["weight"].flatten(), own["bias"].flatten()
    if fixed:
        assert layer.running_mean is not None and layer.running_var is not None
        mean, var = (v.repeat(len(own["weight"])) for v in (layer.running_mean, layer.running_var))
    elif len(x) == n_support:
        return batch_norm(x, None, None, scale, shift, training=True, eps=layer.eps)
    else:
        var, mean = torch.var_mean(x[:n_support], dim=(0, 2, 3), correction=0)
    return batch_norm(x, mean, var, scale, shift, eps=layer.eps)
