"""Train a network on the pictures of ``preprocess`` and log it as PyTorch file, ONNX file and MLflow model.

With the variable MLFLOW_PROJECTS_CHECKPOINT_DIR, each epoch ends with a checkpoint in that folder, and a later
attempt goes on after the last one.
"""

import argparse
import os


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--upstream", required=True, help="artifact downstream_directory of a preprocess run")
    parser.add_argument("--downstream", default="", help="also keep the model's files below this local folder")
    parser.add_argument("--tensorboard", default="", help="also keep TensorBoard's files below this local folder")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--num_workers", type=int, default=4, help="processes that prepare batches; 0: none")
    parser.add_argument("--learning_rate", type=float, default=0.001)
    parser.add_argument("--model_type", choices=("simple", "vgg11", "vgg16"), default="vgg11")
    parser.add_argument("--seed", type=int, default=42)
    arguments = parser.parse_args()
    for name, least in (("epochs", 1), ("batch_size", 1), ("num_workers", 0), ("seed", 0)):
        if getattr(arguments, name) < least:
            parser.error(f"--{name} must be {least} or more, not {getattr(arguments, name)}")
    if not 0 < arguments.learning_rate < float("inf"):
        parser.error(f"--learning_rate must be a number above 0, not {arguments.learning_rate}")
    return arguments


if __name__ == "__main__":
    wanted = parse_arguments()
    # Read when torch loads. PyTorch's threads else wait for each other without rest, which makes a small network
    # ten times slower on a machine that has other work too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from training import run

    run(wanted)
