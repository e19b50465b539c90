"""Programs by their names, as far as commands of projects start them: which start others, and which take data."""

from __future__ import annotations

# Modules of Python that run the words after their name.
RUN_WORDS = ("timeit", "pdb", "IPython", "ptpython", "bpython")
# They run the program that their words name, after options, settings and numbers of their own.
WRAPPERS = frozenset(
    (
        "builtin", "command", "exec", "env", "time", "timeout", "nohup", "nice", "ionice", "stdbuf", "xargs", "sudo",
        "setsid", "busybox", "flock", "sshpass", "srun", "mpirun",
    )
)  # fmt: skip
# The same, after the word "run".
LAUNCHERS = ("conda", "hatch", "mamba", "micromamba", "pdm", "pipenv", "poetry", "uv")
# Their options behind "run" whose value is a word of its own, and no program.
LAUNCHERS_VALUES = {
    **dict.fromkeys(("conda", "mamba", "micromamba"), ("-n", "--name", "-p", "--prefix", "--cwd")),
    "uv": ("-p", "--python", "--with", "--extra", "--group", "--package", "--project", "--directory"),
}
# What they are given is data to them, apart from the options below.
TAKE_DATA = frozenset(
    (
        ":", "[", "aws", "base64", "basename", "column", "dbt", "nl", "pandoc", "cat", "cd", "chmod", "chown",
        "cmp", "cp", "curl", "cut", "date", "df", "diff", "dirname", "du", "echo", "egrep", "envsubst", "exit",
        "export", "false", "fgrep", "find", "grep", "gsutil", "gunzip", "gzip", "head", "kaggle", "kill", "ln",
        "local", "ls", "mkdir", "mv", "nvidia-smi", "papermill", "popd", "printf", "pushd", "pwd", "readlink",
        "readonly", "realpath", "return", "rm", "rmdir", "seq", "set", "shift", "sleep", "sort", "stat",
        "streamlit", "tail", "tar", "tee", "test", "touch", "tr", "true", "uniq", "unzip", "wait", "wc", "wget",
        "zip",
    )
)  # fmt: skip
# They start Python, or what their words say; in front of a file of Python at least.
START = (
    "accelerate", "accelerate.commands.launch", "deepspeed", "gunicorn", "horovodrun", "java", "kedro", "mlflow",
    "pytest", "spark-submit", "torch.distributed.launch", "torch.distributed.run", "torchrun", "uvicorn",
)  # fmt: skip
# Modules of Python that are programs of this kind: "python -m torchrun" is "torchrun".
MODULES = (
    *START, *LAUNCHERS, "coverage", "debugpy", "dotenv", "dvc", "honcho", "flask", "invoke", "jupyter", "pip", "pipx",
    "venv", "virtualenv",
)  # fmt: skip
