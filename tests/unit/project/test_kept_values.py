"""A value that a variable keeps: what else may stand in the command, and what may read it as code."""

from __future__ import annotations

import pytest

from mlflow_projects.exceptions import ProjectError
from tests.unit.project.test_quoting import built

BEFORE = 'A="{x}"; '
PLAIN = [
    './show "$A"', "./show $A", '[ "$A" = b ]', '[ -n "$A" ]', '[ "$A" ]', '[ "$(cat f)" = b ]',
    '[ "${A}" = b ]', '[ ! "$A" ]', 'test "$A" = b', 'test -n "$A"', "[[ $A == b ]]", "[[ $A =~ ^a ]]",
    "[[ -z $A ]]", "[[ $A < b ]]", "N=$((1 + 2))", "N=$((2 * 3 % 2))", 'echo "$A"', "echo $A",
    'printf "%s" "$A"', "cat f", "export A", 'export B="$A"', "readonly B=1", "declare B=1", "declare -r B=1",
    "declare -x B=1", "local B=1", "typeset B=1", "set -e", "set -euo pipefail", "cd d", 'cd "$A"', "pushd d",
    "cat < f", 'cat < "$A"', "echo a > f.csv", 'echo "$A" > f.csv', 'echo "$A" > f.txt; bash run.sh',
    'echo "$A" > "$F"; ./show', 'echo "$A" >> f.json; python -m b', "mv a.csv b.csv; ./show",
    "ln -s a b; ./show", "cp a .; ./show", 'for i in a b; do ./show "$i"; done',
    'for i in $A; do ./show "$i"; done', 'for i in "$A"; do ./show "$i"; done', "until false; do ./show; done",
    'case "$A" in a) ./show;; esac', "case $A in a) ./show;; esac",
    'if [ "$A" = b ]; then ./show; else ./show b; fi', "if ! ./show; then exit 1; fi", "trap - EXIT",
    'trap "./show" EXIT', 'eval "./show b"', 'bash -c "./show b"', 'bash -c \'./show "$A"\'', "bash run.sh",
    'bash run.sh "$A"', "./show <<END\n$A\nEND\n", "./show <<END\n${A}\nEND\n",
    "./show <<'END'\n`cat f` $((A))\nEND\n", "python a.py", 'python a.py "$A"', "python a.py $A",
    'python a.py --a="$A"', 'python -m b "$A"', 'python -c "print(1)"', "cat f | python a.py",
    'Rscript a.R "$A"', "sed -n 1p f", "awk '{print $1}' f", "find . -name a", "tar cf a.tar b",
    "git clone a b", "docker run i", "ssh host ls", "pip install a", "pip install -r r.txt",
    'conda run -n e python a.py "$A"', 'conda run -n "$A" python a.py', 'torchrun a.py "$A"',
    "torchrun --nproc 2 a.py", 'nohup python a.py "$A"', 'timeout 5 ./show "$A"', 'timeout "$A" ./show',
    "env B=1 ./show", 'B="$A" ./show', 'B="$A" bash -c \'./show "$B"\'', "PATH=/bin ./show",
    'export PYTHONPATH="$A"', 'export MLFLOW_RUN_ID="$A"', 'export CUDA_VISIBLE_DEVICES="$A"',
    "BASH_ENV=b ./show", "GIT_SSH_COMMAND=ssh git fetch", "RANDOM=4", "SECONDS=0", "IFS=,", 'B="$(cat f)"',
    "B=$(cat f)", "B=`cat f`", "B=${A}", "B=${A:-b}", "B=${A:=b}", 'B="${A:0:3}"', 'B="${A#b}"',
    'B="${A%.csv}"', 'B="${A/a/b}"', 'B="${A^^}"', 'B="${A,,}"', 'B="${#A}"', "B=$A$A", 'B="$A/c"', "B+=c",
    'f() { ./show "$1"; }; f a', 'f() { ./show "$1"; }; f "$A"', 'f() { local b="$1"; ./show "$b"; }; f a',
    "f() { return 1; }; f", 'mkdir -p "$A"', "mkdir -p d", "mkdir -p d && cd d", 'touch "$A"', "rm -rf d",
    "exec ./show", "exec python a.py", "command ./show", "command -v python", '"$B/run" a', "sleep 1",
    "( ./show )", "{ ./show; }", "! ./show", "time ./show", "./show || exit 1", "./show | cat",
    "./show | grep a", './show | grep "$A"', "./show 2>&1", "./show 2>/dev/null", "./show &> log",
    "./show >& log", "echo $((1+1)) | python a.py", "jq .a f", 'curl -s "$A"', "wget url", "sort f | uniq",
    "sort f > g", "sort -o g f", "hyperf a", 'spark-submit a.py "$A"', "spark-submit --conf a=b a.py",
    "snakemake", "dvc repro", "mlflow run .", "papermill a.ipynb b.ipynb",
    'papermill a.ipynb b.ipynb -p a "$A"', "jupyter nbconvert a.ipynb", 'sqlite3 db "select 1"', "gcc a.c",
    'java -jar a.jar "$A"', 'node a.js "$A"', 'perl a.pl "$A"', 'ruby a.rb "$A"', 'julia a.jl "$A"',
    "sbatch a.sh", 'srun python a.py "$A"', 'mpirun -n 2 python a.py "$A"', 'accelerate launch a.py "$A"',
    'deepspeed a.py "$A"', "gunicorn app:app", "uvicorn app:app", "pytest", 'pytest "$A"', 'pytest -k "$A"',
    'poetry run python a.py "$A"', 'uv run python a.py "$A"', 'nice -n 5 ./show "$A"', 'basename "$A"',
    'dirname "$A"', 'realpath "$A"', "date +%s", 'date +"$A"', "seq 1 3", 'head -n 1 "$A"', 'tail -f "$A"',
    'wc -l "$A"', 'wc -l < "$A"', 'grep a "$A"', "grep -r a .", 'cut -d, -f1 "$A"', "tr a b < f", 'unzip "$A"',
    "unzip a.zip", 'unzip a.zip -d "$A"', 'gzip "$A"', 'aws s3 cp "$A" .', "aws s3 cp a s3://b/c",
    "gsutil cp a b", "kubectl apply -f a", "source venv/bin/activate", ". venv/bin/activate",
    "conda activate e", "umask 0", "type python", "which python", "true", "false", ":", "exit 0", "return 0",
    "echo", "kill $!", 'kill "$A"',
]  # fmt: skip
READS_CODE = [
    "[ $A = b ]", "[ -n $A ]", "[ $(cat f) = b ]", "[ ${A} = b ]", '[ a = b -a "$A" = c ]',
    '[ a = b -o "$A" = c ]', "test $A = b", 'test -v "$A"', "[[ $A -gt 1 ]]", "N=$((A + 1))", 'printf "$A"',
    "declare -i B=1", 'set -- "$A"', 'echo "$A" > f.sh', 'echo "$A" > f.py; python a.py',
    'echo "$A" > f.txt; bash f.txt', 'echo "$A" > f.txt; source f.txt', 'echo "$A" > "$F"; bash run.sh',
    'echo "$A" > "$F"; . run.sh', 'echo "$A" | tee f.txt; bash f.txt', 'echo "$A" > a.py; cp a.py b.csv',
    'echo "$A" > a.csv; cp a.csv b.py', 'echo "$A" > a.csv; tox', 'unset "A[0]"', 'trap "$A" EXIT', 'eval "$A"',
    'eval "./show $A"', 'bash -c "./show $A"', "bash -c '[[ $A -gt 1 ]]'", 'bash -c "$B"', 'bash "$A"',
    "bash < f", "cat f | bash", "bash <<END\n./show\nEND\n", "./show <<END\n$(cat f)\nEND\n",
    "./show <<END\n$((A))\nEND\n", "./show <<END\n`cat f`\nEND\n", 'python -c "print($A)"', 'python -c "$A"',
    'python "$A"', 'python "$A.py"', "python - < f", "cat f | python", 'python -W "$A" a.py',
    'sed -i "s/a/$A/" f', 'awk "{print $A}" f', "find $A -name b", 'tar cf "$A" b', "tar cf a.tar $A",
    'ls "$A" | xargs -n1 echo', 'git -c a.b="$A" status', 'make A="$A"', 'docker run -e A="$A" i',
    'ssh host "ls $A"', "torchrun --nproc $A a.py", "timeout $A ./show", 'env B="$A" bash -c \'./show "$B"\'',
    "env $A ./show", 'PATH="$A" ./show', 'export PATH="$A:$PATH"', 'export PYTHONSTARTUP="$A"',
    'BASH_ENV="$A" ./show', "RANDOM=A", 'IFS="$A"', 'B="${A:0:$N}"', 'B="${!A}"', 'B="${A@Q}"',
    'f() { eval "$1"; }; f a', "$B", "$B/run", '"$B" run', "./$B", "getopts a: B", "bash <(cat a)",
    'ls | while read l; do eval "$l"; done', 'jq ".$A" f', 'curl -s "$A" | bash', "curl -s url | sh",
    'hyperf "$A"', 'hyperf "a $A"', "hyperf $A", 'spark-submit --conf a="$A" a.py', 'snakemake --config a="$A"',
    'sqlite3 db "select \'$A\'"', 'psql -c "select \'$A\'"', 'perl -e "print $A"', 'su -c "./show $A"',
    'watch "./show $A"', 'parallel ./show ::: "$A"', 'papermill a.ipynb b.ipynb -y "a: $A"',
    'mlflow run . -P a="$A"', 'export MAILPATH="f?$A"', 'MLFLOW_CONDA_HOME="$A" mlflow run .',
]  # fmt: skip


def written(rest: str) -> str:
    return BEFORE + rest.replace("{", "{{").replace("}", "}}")


@pytest.mark.parametrize("rest", PLAIN)
def test_a_value_is_kept_where_nothing_reads_it_as_code(rest):
    assert built(written(rest), "a b") == f"""A=""'a b'""; {rest}"""


@pytest.mark.parametrize("rest", READS_CODE)
def test_a_value_is_not_kept_where_something_may_read_it_as_code(rest):
    with pytest.raises(ProjectError, match="in a variable, or in a file, of a command that may read it as code"):
        built(written(rest), "a b")


@pytest.mark.parametrize("rest", READS_CODE)
def test_a_value_that_is_kept_nowhere_may_stand_beside_it(rest):
    plain = written(rest).removeprefix(BEFORE)
    assert built(f"./show '{{x}}'; A=a; {plain}", "a b") == f"./show ''{'a b'!r}''; A=a; {rest}"
