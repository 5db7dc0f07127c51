"""The last linear layer of a network that has one: found, drawn anew, put in another's place."""

from collections.abc import Callable

from torch import nn


def head_of(network: nn.Module) -> nn.Linear:
    """Return the output layer of an encoder, or of a network for images or features.

    Raises:
        TypeError: the network answers in another way, such as by tokens.
    """
    linear = [(name, m) for name, m in network.named_modules() if isinstance(m, nn.Linear)]
    name, last = linear[-1] if linear else ("", None)
    if last is None or name.split(".")[0] not in ("head", "layers"):
        raise TypeError(f"{type(network).__name__} has no linear output layer")
    return last


def with_head(network: nn.Module, make: Callable[[nn.Linear], nn.Linear]) -> nn.Module:
    """Put what is made of the output layer in its place, and return the network."""
    old = head_of(network)
    name = next(n for n, m in network.named_modules() if m is old)
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, make(old))
    return network
