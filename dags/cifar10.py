"""### Train, serve and measure an image classifier

Four MLflow Projects as Airflow tasks, all children of one MLflow run, `cifar10`.

| step | does | its artifact `downstream_directory` |
|---|---|---|
| `preprocess` | makes PNG files by label of a data set, or takes those of an earlier run | `train`, `test` |
| `train` | trains a network with PyTorch; a retry goes on after the last epoch | `*.onnx`, `*.pth` |
| `building` | puts the model and its server into an image, or packs both as a process | `server.json` |
| `evaluate` | starts that server, sends it every test image, takes it down | `predictions.json`, and metrics |

Each step can be cleared and run again alone: it finds its input by artifact URI. `data = sample` with the model
`simple` takes a minute and needs no network (`make demo DAG=cifar10`). More in `docs/cifar10.md`.
"""

from datetime import datetime, timedelta
from pathlib import Path

from airflow.sdk import DAG, Param

from mlflow_projects import MLflowProjectOperator, mlflow_run

PROJECTS = Path(__file__).resolve().parents[1] / "sample_projects" / "cifar10"
# An empty docker_image means: in the Python environment of the step's own python_env.yaml.
IN_ENVIRONMENT = {"docker_image": "{{ params.image if params.environment == 'image' else '' }}"}

with DAG(
    "cifar10",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    max_active_runs=2,
    default_args={
        "retries": 2,
        "retry_delay": timedelta(seconds=10),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=10),
    },
    params={
        "preprocess_data": Param("cifar10", type="string", minLength=1, title="Data set", section="preprocess",
                                 examples=["cifar10", "cifar100", "fashion-mnist", "sample"],
                                 description="cifar10 and cifar100 are downloaded, fashion-mnist is Debian's "
                                             "package, sample is made here; or the folder of CIFAR's own batches."),
        "preprocess_downstream": Param("", type="string", title="Folder for the files", section="preprocess",
                                       description="On the worker. Empty: only the run's artifact is kept."),
        "preprocess_cached_data_id": Param("", type="string", title="Earlier preprocess run", section="preprocess",
                                           description="MLflow run id; its files are taken instead of new ones."),
        "train_downstream": Param("", type="string", title="Folder for the model", section="train",
                                  description="On the worker. Empty: only the run's artifact is kept."),
        "train_tensorboard": Param("", type="string", title="Folder for TensorBoard", section="train",
                                   description="On the worker. Empty: only the run's artifact is kept."),
        "train_epochs": Param(1, type="integer", minimum=1, maximum=1000, title="Epochs", section="train",
                              description="How often the network sees all images."),
        "train_batch_size": Param(32, type="integer", minimum=1, maximum=4096, title="Batch size", section="train",
                                  description="Images of one step of the optimiser."),
        "train_num_workers": Param(4, type="integer", minimum=0, maximum=64, title="Loader processes",
                                   section="train", description="Processes that read images; 0: none but train."),
        "train_learning_rate": Param(0.001, type="number", exclusiveMinimum=0, maximum=1, title="Learning rate",
                                     section="train", description="Of the optimiser Adam."),
        "train_model_type": Param("vgg11", type="string", enum=["simple", "vgg11", "vgg16"], title="Network",
                                  section="train", description="62,006, 9,505,386 or 15,002,538 parameters."),
        "train_backend": Param("local", type="string", enum=["local", "sagemaker"], title="Where to train",
                               section="train", description="On the worker, or as an Amazon SageMaker training job."),
        "building_dockerfile_path": Param("./Dockerfile", type="string", minLength=1, title="Dockerfile",
                                          section="building", description="Relative to the project building."),
        "building_model_filename": Param("", type="string", title="Model file", section="building",
                                         description="In train's artifact. Empty: the one that train wrote last."),
        "building_entrypoint_path": Param("./server/entrypoint.sh", type="string", minLength=1, title="Entry point",
                                          section="building", description="Relative to the project building."),
        "building_mode": Param("auto", type="string", enum=["auto", "image", "process"], title="Server",
                               section="building",
                               description="auto: an image where a container engine answers and has or gets the base "
                                           "image, else a process."),
        "building_base_image": Param("python:3.11-slim-bookworm", type="string", minLength=1, title="Base image",
                                     section="building", description="Of the server's image; has python3 with venv."),
        "evaluate_downstream": Param("", type="string", title="Folder for the results", section="evaluate",
                                     description="On the worker. Empty: only the run's artifact is kept."),
        "reuse": Param(False, type="boolean", section="reuse", title="Reuse results",
                       description="preprocess and train do not run if nothing changed since an earlier run."),
        "environment": Param("python_env", type="string", enum=["python_env", "image"], section="environment",
                             title="preprocess and train run in",
                             description="A Python environment that is built on the worker, or a container."),
        "image": Param("mlflow-projects/cifar10:latest", type="string", minLength=1, title="Image",
                       section="environment", description="For 'image'; custom_images/build.sh cifar10 builds it."),
    },
    tags=["sample"],
    doc_md=__doc__,
):  # fmt: skip
    with mlflow_run("cifar10", experiment_name="cifar10"):
        preprocess = MLflowProjectOperator(
            task_id="preprocess",
            uri=f"{PROJECTS}/preprocess",
            parameters={
                "data": "{{ params.preprocess_data }}",
                "downstream": "{{ params.preprocess_downstream }}",
                "cached_data_id": "{{ params.preprocess_cached_data_id }}",
            },
            backend_config=IN_ENVIRONMENT,
            reuse="{{ params.reuse }}",
        )
        train = MLflowProjectOperator(
            task_id="train",
            uri=f"{PROJECTS}/train",
            parameters={
                "upstream": preprocess.artifact("downstream_directory"),
                "downstream": "{{ params.train_downstream }}",
                "tensorboard": "{{ params.train_tensorboard }}",
                "epochs": "{{ params.train_epochs }}",
                "batch_size": "{{ params.train_batch_size }}",
                "num_workers": "{{ params.train_num_workers }}",
                "learning_rate": "{{ params.train_learning_rate }}",
                "model_type": "{{ params.train_model_type }}",
            },
            backend="{{ params.train_backend }}",
            backend_config=IN_ENVIRONMENT,
            reuse="{{ params.reuse }}",
        )
        building = MLflowProjectOperator(
            task_id="building",
            uri=f"{PROJECTS}/building",
            parameters={
                "dockerfile_path": "{{ params.building_dockerfile_path }}",
                "model_filename": "{{ params.building_model_filename }}",
                "model_directory": train.artifact("downstream_directory"),
                "entrypoint_path": "{{ params.building_entrypoint_path }}",
                "mode": "{{ params.building_mode }}",
                "base_image": "{{ params.building_base_image }}",
            },
        )
        evaluate = MLflowProjectOperator(
            task_id="evaluate",
            uri=f"{PROJECTS}/evaluate",
            parameters={
                "upstream": building.artifact("downstream_directory"),
                "downstream": "{{ params.evaluate_downstream }}",
                "test_data_directory": preprocess.artifact("downstream_directory/test"),
            },
        )
        preprocess >> train >> building >> evaluate
