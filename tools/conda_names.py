"""Make plugins/mlflow_projects/project/conda_names.txt: conda packages that pip has under a known name.

Usage: python tools/conda_names.py COMPRESSED_MAPPING.json GRAYSKULL_PYPI_MAPPING.json

The first file is files/v0/conda-forge/compressed_mapping.json of the project parselmouth (prefix-dev on GitHub): the
names that the packages of conda-forge give themselves in their metadata. The second is grayskull_pypi_mapping.json of
conda-forge's robot (cf-graph-countyfair of regro, mappings/pypi): packages whose source comes from PyPI. A name is
taken only where both agree: a package's own word for itself says nothing of who owns that name on PyPI.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

# What people write in conda.yaml files and the second list lacks; the first one says the same of nearly all of them.
SAME = """
aiohttp altair beautifulsoup4 black cached-property catboost certifi cffi configparser cookiecutter cryptography
cvxpy cython dask databricks-cli docker-pycreds fbprophet flake8 future geopandas google-api-core
googleapis-common-protos grpcio h5py hydra-core importlib-metadata importlib_metadata joblib jupyter_core
jupyterlab_server jupytext keras keras-applications matplotlib mlflow mlflow-skinny multidict mypy nbconvert netcdf4
opt_einsum pandas pandas-profiling param pathy pillow plotly polars pooch pre-commit prompt-toolkit prompt_toolkit
protobuf pyarrow pymongo pynvml pyshp pyspark pytest-cov python-dotenv pyyaml qtconsole rasterio rdkit rich
scikit-learn scipy seaborn sentencepiece setuptools_scm smart_open tensorboard-data-server tensorflow
tensorflow-datasets tensorflow-estimator tensorflow-hub tensorflow-probability threadpoolctl tokenizers toolz
torchaudio torchtext torchvision typer typing-extensions uvicorn watchdog webencodings xgboost yapf yarl
"""
OTHER = {
    "cufflinks-py": "cufflinks",
    "keras-gpu": "keras",
    "opencv": "opencv-python-headless",
    "psycopg2": "psycopg2-binary",
    "py-opencv": "opencv-python-headless",
    "py-xgboost": "xgboost",
    "pyg": "torch-geometric",
    "pytorch-cpu": "torch",
    "brotli-python": "brotli",
    "pytorch-gpu": "torch",
    "ruamel_yaml": "ruamel-yaml",
    "tensorflow-gpu": "tensorflow",
}
TARGET = Path(__file__).parents[1] / "plugins" / "mlflow_projects" / "project" / "conda_names.txt"
HEADER = """\
# conda's name and pip's, or one name that is the same; made by tools/conda_names.py, which names the sources.
"""


def main() -> int:
    own, sources = (json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:3])
    from_pypi: dict[str, set[str]] = {}
    for entry in sources.values():
        from_pypi.setdefault(entry["conda_name"], set()).add(canonical(entry["pypi_name"]))
    table = {name: canonical(name) for name in SAME.split()} | OTHER
    for conda, names in own.items():
        agreed = {canonical(name) for name in names or ()} & from_pypi.get(conda, set())
        if len(agreed) == 1:
            table.setdefault(conda, agreed.pop())
    lines = [conda if conda == pip else f"{conda} {pip}" for conda, pip in sorted(table.items())]
    TARGET.write_text(HEADER + "\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} names in {TARGET}")
    return 0


def canonical(name: str) -> str:
    """Return a name as PyPI compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
