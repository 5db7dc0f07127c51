"""The small networks for images and features: built here, nothing to load."""

from torch import Tensor, nn


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
