"""Checkpoints: what a later attempt needs to go on after the last whole epoch, as if nothing had happened."""

import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

FORMAT = 1
FOLDER_VARIABLE = "MLFLOW_PROJECTS_CHECKPOINT_DIR"
FILE = "checkpoint.pt"

History = list[dict[str, float]]


@dataclass(frozen=True)
class Checkpoints:
    """The place of the last checkpoint.

    :param file: None: there are none
    :param settings: whatever a training must have in common with the one that it continues
    """

    file: Path | None
    settings: dict[str, Any]

    @classmethod
    def of_environment(cls, settings: dict[str, Any]) -> "Checkpoints":
        """Take the folder that whoever runs this project provides; it outlives an attempt."""
        folder = os.environ.get(FOLDER_VARIABLE)
        return cls(Path(folder) / FILE if folder else None, settings)

    def save(self, network: nn.Module, optimizer: torch.optim.Optimizer, history: History) -> None:
        """Replace the last checkpoint; a kill at any moment leaves the old one or the new one, whole."""
        if self.file is None:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "format": FORMAT,
            "settings": self.settings,
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "random": {
                "python": random.getstate(),
                "torch": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            },
            "history": history,
        }
        temporary = self.file.with_suffix(".tmp")
        with temporary.open("wb") as stream:
            torch.save(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(self.file)

    def restore(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, epochs: int, device: torch.device
    ) -> History:
        """Set network, optimizer and chance to the last checkpoint's; return its epochs' metrics.

        Nothing is changed, and the history is empty, if there is no checkpoint, or one that does not fit.

        :param epochs: how many are wanted in all
        """
        if self.file is None or not self.file.exists():
            return []
        try:
            content = torch.load(self.file, map_location=device, weights_only=True)
            settings, history = content["settings"], content["history"]
        except Exception as error:  # a damaged file raises anything
            print(f"The checkpoint {self.file} is left alone, because it cannot be read: {error}")
            return []
        if content["format"] != FORMAT or settings != self.settings or len(history) > epochs:
            names = {*settings, *self.settings}
            other = sorted(name for name in names if settings.get(name) != self.settings.get(name))
            print(f"The checkpoint {self.file} is left alone: it has other {', '.join(other) or 'epochs or format'}.")
            return []
        network.load_state_dict(content["network"])
        optimizer.load_state_dict(content["optimizer"])
        random.setstate(content["random"]["python"])
        torch.set_rng_state(content["random"]["torch"].cpu())
        if torch.cuda.is_available() and content["random"]["cuda"]:
            torch.cuda.set_rng_state_all([state.cpu() for state in content["random"]["cuda"]])
        return history
