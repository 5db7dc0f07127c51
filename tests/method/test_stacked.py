"""Networks of many tasks run at once: each as it is alone, normalised by its own support."""

import copy

import pytest
import torch
from torch import Tensor, nn

from annorun.method.stacked import Weights, by_task, for_each, stacked
from annorun.net_small import ConvEmbedding, FeatureEmbedding

N_TASKS, N_SUPPORT, N_QUERY = 3, 5, 4


def drawn(net: nn.Module) -> Weights:
    """Weights of each task's own."""
    draw = torch.Generator().manual_seed(1)
    return {
        name: for_each(N_TASKS, p.detach()) + 0.3 * torch.randn(N_TASKS, *p.shape, generator=draw)
        for name, p in net.named_parameters()
    }


def alone(net: nn.Module, weights: Weights, x: Tensor, n_support: int, fixed: bool) -> Tensor:
    """One task's network layer by layer, (N, M): what its support is, normalises all."""
    own = copy.deepcopy(net)
    own.load_state_dict(weights, strict=False)
    for layer in own.children():
        if isinstance(layer, nn.BatchNorm2d):
            mean, var = layer.running_mean, layer.running_var
            if not fixed:
                support = x[:n_support].transpose(0, 1).flatten(1)
                mean, var = support.mean(dim=1), support.var(dim=1, correction=0)
            shape = (1, -1, 1, 1)
            x = (x - mean.view(shape)) / (var.view(shape) + layer.eps).sqrt()
            x = x * layer.weight.view(shape) + layer.bias.view(shape)
        else:
            x = layer(x)
    return x


@pytest.mark.parametrize("n", [N_SUPPORT, N_SUPPORT + N_QUERY])
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("kind", ["image", "features"])
def test_each_task_is_as_it_is_alone(kind: str, fixed: bool, n: int) -> None:
    """In another place of the batch it would have another's weights, or another's statistics."""
    shape = (2, 6, 6) if kind == "image" else (7,)
    torch.manual_seed(0)
    net = ConvEmbedding(shape) if kind == "image" else FeatureEmbedding(7)
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_()
                layer.running_var.uniform_(0.5, 2.0)
    weights = drawn(net)
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(N_TASKS, n, *shape, generator=draw)
    # queries are of another size than supports
    x[:, N_SUPPORT:] = 3 * x[:, N_SUPPORT:] + 1
    with torch.no_grad():
        found = stacked(net, weights, x, N_SUPPORT, fixed)
        assert found.shape == (N_TASKS, n, net.size)
        for t, own in enumerate(by_task(weights)):
            expected = alone(net, own, x[t], N_SUPPORT, fixed)
            torch.testing.assert_close(found[t], expected, rtol=1e-3, atol=1e-4)


def test_a_layer_without_a_form_for_many_tasks_is_refused() -> None:
    net = nn.Sequential(nn.PReLU())
    with pytest.raises(TypeError, match="PReLU: has weights, and no form for many tasks"):
        stacked(net, drawn(net), torch.zeros(N_TASKS, 2, 4), 2, False)
