"""From pictures to a trained network in the record of MLflow."""

import argparse
import os
import random
import tempfile
import time
from pathlib import Path

import mlflow
import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from checkpoint import Checkpoints, History
from errors import TrainingError
from export import log_model, write_files
from learning import evaluate, train_epoch
from network import build_network
from pictures import NormalisedBatches, Pictures, loader, local_copy, read_pictures
from record import Record, is_finite

CHECKED = 256  # test pictures that PyTorch and ONNX are compared with


def learn(
    arguments: argparse.Namespace, pictures: Pictures, network: nn.Module, record: Record, tensorboard: Path
) -> History:
    """Train the network, from the last checkpoint on if there is one that fits; return the epochs' metrics.

    :raises TrainingError: the loss is no number any more
    """
    device = next(network.parameters()).device
    # More processes than processors only take turns.
    workers = min(arguments.num_workers, len(os.sched_getaffinity(0)))
    mean, std = pictures.normalisation()
    train, test = (NormalisedBatches(split, mean, std) for split in (pictures.train, pictures.test))
    optimizer = torch.optim.Adam(network.parameters(), lr=arguments.learning_rate)
    settings = {name: getattr(arguments, name) for name in ("model_type", "batch_size", "learning_rate", "seed")}
    checkpoints = Checkpoints.of_environment({**settings, "pictures": pictures.fingerprint})
    history = checkpoints.restore(network, optimizer, arguments.epochs, device)
    if history:
        print(f"Resuming after epoch {len(history)}")
    record.log_epochs(history)
    with SummaryWriter(str(tensorboard)) as board:
        for epoch, metrics in enumerate(history, start=1):
            _show(board, metrics, epoch)
        for epoch in range(len(history) + 1, arguments.epochs + 1):
            started = time.monotonic()
            # The order depends on seed and epoch alone, so a resumed training sees what an uninterrupted one sees.
            order = torch.Generator().manual_seed(arguments.seed + epoch)
            trained = train_epoch(
                network, optimizer, loader(train, arguments.batch_size, workers, order), device, len(train)
            )
            tested = evaluate(network, loader(test, arguments.batch_size, workers), device)
            metrics = {
                "train_loss": trained.loss,
                "train_accuracy": trained.accuracy,
                "test_loss": tested.loss,
                "test_accuracy": tested.accuracy,
                "epoch_seconds": time.monotonic() - started,
            }
            if not is_finite(metrics):
                raise TrainingError(f"The loss of epoch {epoch} is not a number; use a smaller learning_rate.")
            history = [*history, metrics]
            checkpoints.save(network, optimizer, history)
            record.log_epoch(history)
            _show(board, metrics, epoch)
            print(
                f"Epoch {epoch} of {arguments.epochs}: loss {trained.loss:.4f}, accuracy {trained.accuracy:.4f}; "
                f"test: loss {tested.loss:.4f}, accuracy {tested.accuracy:.4f}; {metrics['epoch_seconds']:.1f} s"
            )
    return history


def _show(board: SummaryWriter, metrics: dict[str, float], epoch: int) -> None:
    for name, value in metrics.items():
        board.add_scalar(name, value, epoch)


def publish(pictures: Pictures, network: nn.Module, model_type: str, name: str, folder: Path) -> float:
    """Write and log the trained network; return the largest difference of a logit between ONNX and PyTorch."""
    network.cpu()
    mean, std = pictures.normalisation()
    examples, _ = NormalisedBatches(pictures.test, mean, std)[list(range(min(CHECKED, len(pictures.test.labels))))]
    description = {"classes": pictures.classes, "mean": mean, "std": std, "model_type": model_type}
    difference = write_files(network, description, name, examples.numpy(), folder)
    mlflow.log_artifacts(str(folder), "downstream_directory")
    log_model(network, examples.numpy()[:2])
    return difference


def run(arguments: argparse.Namespace) -> None:
    """Train and record it in an MLflow run: the one of MLFLOW_RUN_ID, or a new one."""
    with mlflow.start_run() as active, tempfile.TemporaryDirectory() as temporary:
        record = Record(active)
        record.log_parameters(vars(arguments))
        downstream = Path(arguments.downstream or temporary) / active.info.run_id
        tensorboard = Path(arguments.tensorboard or temporary) / f"{active.info.run_id}-tensorboard"
        try:
            downstream.mkdir(parents=True, exist_ok=True)
            folder = local_copy(arguments.upstream, Path(temporary))
            pictures = read_pictures(folder, max(1, min(arguments.num_workers, len(os.sched_getaffinity(0)))))
            random.seed(arguments.seed)
            torch.manual_seed(arguments.seed)
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            if arguments.model_type == "simple":
                torch.set_num_threads(1)  # its operations are too small to be shared
            network = build_network(arguments.model_type, len(pictures.classes)).to(device)
            parameters = sum(parameter.numel() for parameter in network.parameters())
            print(f"{arguments.model_type}: {parameters:,} parameters, {len(pictures.classes)} classes, on {device}")
            mlflow.set_tags(
                {"cifar10.step": "train", "cifar10.device": str(device), "cifar10.torch": torch.__version__}
            )
            history = learn(arguments, pictures, network, record, tensorboard)
            mlflow.log_artifacts(str(tensorboard), "tensorboard_directory")
            name = f"cifar10_{active.info.experiment_id}"
            difference = publish(pictures, network, arguments.model_type, name, downstream)
        except TrainingError as error:
            raise SystemExit(str(error)) from None
        results = {"accuracy": history[-1]["test_accuracy"], "loss": history[-1]["test_loss"]}
        record.log_results({**results, "parameters": parameters, "onnx_max_difference": difference})
        print(f"accuracy {results['accuracy']:.4f}, loss {results['loss']:.4f}: {active.info.artifact_uri}")
