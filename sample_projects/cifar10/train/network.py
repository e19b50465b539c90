"""The networks: images of 3×32×32 in, one logit per class out."""

import torch
from torch import nn

# Output channels of the 3×3 convolutions, as in https://arxiv.org/abs/1409.1556, table 1; "pool" halves the picture.
_VGG_LAYERS = {
    "vgg11": (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool"),
    "vgg16": (
        *(64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool"),
        *(512, 512, 512, "pool", 512, 512, 512, "pool"),
    ),
}  # fmt: skip


def build_network(model_type: str, classes: int) -> nn.Module:
    """Return an untrained network.

    :param model_type: simple, vgg11 or vgg16
    :param classes: number of logits
    """
    if model_type == "simple":
        return Simple(classes)
    return VGG(_VGG_LAYERS[model_type], classes)


class Simple(nn.Sequential):
    """Two convolutions and three linear layers; 62,006 parameters for 10 classes."""

    def __init__(self, classes: int) -> None:
        super().__init__(
            nn.Conv2d(3, 6, kernel_size=5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, kernel_size=5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * 5 * 5, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, classes),
        )


class VGG(nn.Module):
    """VGG with batch normalisation and a small head; 9,505,386 (VGG11) or 15,002,538 parameters for 10 classes.

    :param layers: output channels of the convolutions, and "pool" where the picture is halved
    """

    def __init__(self, layers: tuple[int | str, ...], classes: int) -> None:
        super().__init__()
        features: list[nn.Module] = []
        channels = 3
        for layer in layers:
            if isinstance(layer, str):
                features.append(nn.MaxPool2d(2))
            else:
                features += [nn.Conv2d(channels, layer, kernel_size=3, padding=1), nn.BatchNorm2d(layer), nn.ReLU()]
                channels = layer
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels, 512),
            nn.ReLU(),
            nn.Linear(512, 32),
            nn.ReLU(),
            nn.Linear(32, classes),
        )
        for module in self.modules():
            # PyTorch's own first weights make the answers of many layers tiny: hundreds of batches teach nothing.
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, classes) of images (N, 3, 32, 32)."""
        return self.classifier(self.features(images))
