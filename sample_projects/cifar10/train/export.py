"""The trained network as files: PyTorch's, ONNX (checked against PyTorch) and a description for who serves it."""

import json
import warnings
from pathlib import Path
from typing import Any

import mlflow
import mlflow.pytorch
import numpy as np
import onnxruntime
import torch
from mlflow.models import infer_signature
from torch import nn

from errors import TrainingError
from pictures import SHAPE

INPUT, OUTPUT = "input", "output"
MAX_DIFFERENCE = 1e-4  # between a logit of ONNX and of PyTorch


def write_files(
    network: nn.Module, description: dict[str, Any], name: str, images: np.ndarray, folder: Path
) -> float:
    """Write ``<name>.pth``, ``<name>.onnx`` and ``model.json``; return the largest difference of a logit.

    :param description: what model.json is to say of the model, besides its files
    :param images: what to compare PyTorch and ONNX with, as the network takes them
    :raises TrainingError: the two differ by more than MAX_DIFFERENCE
    """
    network.eval()
    pth, onnx = folder / f"{name}.pth", folder / f"{name}.onnx"
    torch.save(network.state_dict(), pth)
    with warnings.catch_warnings():
        # The newer exporter needs one more package and a minute for VGG; torch is pinned, so the older one stays.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            network,
            (torch.zeros(1, *SHAPE),),
            str(onnx),
            dynamo=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
        )
    difference = _difference(network, onnx, images)
    if not difference <= MAX_DIFFERENCE:
        raise TrainingError(f"{onnx.name} differs from the network: a logit by {difference:.2e}.")
    files = {"input": INPUT, "output": OUTPUT, "onnx": onnx.name, "pth": pth.name}
    text = json.dumps({**description, "shape": list(SHAPE), **files}, ensure_ascii=False, indent=1)
    (folder / "model.json").write_text(text, encoding="utf-8")
    return difference


def log_model(network: nn.Module, images: np.ndarray) -> None:
    """Log the network as the MLflow model ``model``, with signature and input example.

    :param images: an example of what the network takes; of two pictures or more, else MLflow fixes the number to 1
    """
    signature = infer_signature(images, _logits(network, images))
    mlflow.pytorch.log_model(
        network,
        name="model",
        signature=signature,
        input_example=images,
        # Given, because MLflow would load the model in another process to find them out.
        pip_requirements=[
            f"mlflow=={mlflow.__version__}",
            f"numpy=={np.__version__}",
            f"torch=={torch.__version__.partition('+')[0]}",
        ],
    )


def _difference(network: nn.Module, onnx: Path, images: np.ndarray) -> float:
    session = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
    return float(np.abs(session.run([OUTPUT], {INPUT: images})[0] - _logits(network, images)).max())


@torch.inference_mode()
def _logits(network: nn.Module, images: np.ndarray) -> np.ndarray:
    return network.eval()(torch.from_numpy(images)).numpy()
