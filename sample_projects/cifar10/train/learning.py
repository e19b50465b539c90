"""One epoch of training, and one look at the test pictures."""

import time
from collections.abc import Iterable

import torch
from torch import nn

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]
PROGRESS_SECONDS = 10.0


class Average:
    """Loss and accuracy over pictures: a batch counts as many times as it has pictures."""

    def __init__(self, device: torch.device) -> None:
        # They stay on the device: asking for a number after each batch would make a GPU wait.
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._right = torch.zeros((), dtype=torch.int64, device=device)
        self.pictures = 0

    def add(self, loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Add a batch.

        :param loss: the mean over the batch
        """
        self._loss += loss.detach().to(self._loss) * len(labels)
        self._right += (logits.detach().argmax(1) == labels).sum()
        self.pictures += len(labels)

    @property
    def loss(self) -> float:
        return float(self._loss) / max(self.pictures, 1)

    @property
    def accuracy(self) -> float:
        return float(self._right) / max(self.pictures, 1)


def train_epoch(
    network: nn.Module, optimizer: torch.optim.Optimizer, batches: Batches, device: torch.device, total: int
) -> Average:
    """Train with each batch once; return the averages while the network changed.

    :param total: number of pictures, for the progress
    """
    network.train()
    criterion = nn.CrossEntropyLoss()
    average = Average(device)
    said = time.monotonic()
    for images, labels in batches:
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        optimizer.zero_grad(set_to_none=True)
        logits = network(images)
        loss = criterion(logits, labels)
        loss.backward()
        optimizer.step()
        average.add(loss, logits, labels)
        if time.monotonic() - said > PROGRESS_SECONDS:
            said = time.monotonic()
            print(f"  {average.pictures:,} of {total:,} pictures ({average.pictures / total:.0%})")
    return average


@torch.inference_mode()
def evaluate(network: nn.Module, batches: Batches, device: torch.device) -> Average:
    """Return the averages over the test pictures; the network does not change."""
    network.eval()
    criterion = nn.CrossEntropyLoss()
    average = Average(device)
    for images, labels in batches:
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        logits = network(images)
        average.add(criterion(logits, labels), logits, labels)
    return average
