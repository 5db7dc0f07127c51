"""The small networks for images and features: built here, nothing to load."""

import torch
from torch import Tensor, nn

# of Conv-4, and the numbers that features become
FILTERS = 64


class ImageNet(nn.Module):
    """Two convolutions and a linear layer, for small images."""

    def __init__(self, shape: tuple[int, ...], n_outputs: int):
        super().__init__()
        channels, height, width = shape
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(64 * (height // 2) * (width // 2), n_outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to (batch, K) logits."""
        logits: Tensor = self.layers(x)
        return logits


class FeatureNet(nn.Module):
    """One hidden layer of 128, for standardised features of a frozen network."""

    def __init__(self, n_features: int, n_outputs: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_features, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, n_outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, n_features) to (batch, K) logits."""
        logits: Tensor = self.layers(x)
        return logits


class ConvEmbedding(nn.Sequential):
    """Conv-4 of prototypical networks (Snell et al. 2017): four blocks of 64 filters.

    28 x 28 pixels become 64 numbers, 84 x 84 become 1600; an image that is one pixel wide is not
    pooled further.
    """

    def __init__(self, shape: tuple[int, ...]):
        channels, height, width = shape
        blocks: list[nn.Module] = []
        for _ in range(4):
            blocks += [
                nn.Conv2d(channels, FILTERS, 3, padding=1),
                nn.BatchNorm2d(FILTERS),
            ]
            channels = FILTERS
            if min(height, width) > 1:
                blocks.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
            # after the pooling: the same numbers, a quarter of the work
            blocks.append(nn.ReLU())
        super().__init__(*blocks, nn.Flatten())
        self.size = FILTERS * height * width
        # half the time of a step on a CPU, the same numbers
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class FeatureEmbedding(nn.Sequential):
    """One hidden layer of 128, for standardised features of a frozen network."""

    def __init__(self, n_features: int):
        super().__init__(nn.Linear(n_features, 128), nn.ReLU(), nn.Linear(128, FILTERS))
        self.size = FILTERS
