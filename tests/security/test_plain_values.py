"""A value of plain characters is data in the code of real programs, or it is refused.

The programs see a PATH of one folder: themselves, and commands of ours that leave a file if anything starts them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.shell_syntax import is_plain
from tests.unit.project.test_quoting import built

PROGRAMS = ("bash", "perl", "sed", "awk", "gawk", "mawk", "node", "jq", "cat", "echo")
CANARIES = ("x", "p", "run", "xp", "2p", "e", "w", "a", "b")
# (command, value): each really starts a command of ours if it is let in as MLflow would.
STARTS = {
    "perl": ('perl -e "print {x}"', "exec+run"),
    "perl, by numbers": ('perl -e "print {x}"', "exec+chr+120"),
    "perl, a quote operator": ('perl -e "print {x}"', "qx.run."),
    "perl, behind a wrapper": ("timeout() {{ shift; $@; }}; nice() {{ $@; }}; perl -we 'print {x}'", "qx.run."),
    "perl, in another word's code": ("bash -c 'perl -e \"print {x}\"'", "qx.run."),
    "perl, behind a substitution": ('echo aa | perl -pe "s/a/{x}/g"', "qx.run./e.1"),
    "perl, in a replacement that is code": ('echo aa | perl -pe "s|a|{x}|e"', "qx.run."),
    "perl, from a variable": ('A={x}; perl -e "print $A"', "qx.run."),
    "perl, from an argument": ("bash -c 'perl -e \"print $1\"' name {x}", "qx.run."),
    "perl, from a substitution": ('perl -e "print $(echo {x})"', "qx.run."),
    "perl, from a here-document": ("perl <<END\nprint {x}\nEND\n", "qx.run."),
    "perl, from a pipe": ("echo 'print {x}' | perl", "qx.run."),
    "perl, in a file that is none": ('perl <(echo "print {x}")', "qx.run."),
    "perl, from a here-document for a shell": ("bash <<END\nperl -e 'print {x}'\nEND\n", "qx.run."),
    "perl, from a pipe to a shell": ("""echo "perl -e 'print {x}'" | bash""", "qx.run."),
    "perl, from eval": ("""eval perl -e "'print {x}'" """, "qx.run."),
    "perl, in a text for another program": (
        """flock() {{ bash -c "$3"; }}; flock . -c "perl -e 'print {x}'" """, "qx.run.",
    ),
    "perl, from ssh": ("""ssh() {{ shift; eval "$@"; }}; ssh host perl -e "'print {x}'" """, "qx.run."),
    "perl, in a variable": ('P=perl; $P -e "print {x}"', "qx.run."),
    "sed, the program in a variable": ("S=sed; echo a | $S '{x}p'", "1ex"),
    "perl, in a folder that only the shell knows": ('D=$(echo ../bin); "$D/perl" -e "print {x}"', "qx.run."),
    "perl, a string that is evaluated": ("perl -e \"eval '{x}'\"", "qx.run."),
    "perl, a string in code in a string": ("perl -e 'print \"@{{[{x}]}}\"'", "qx.run."),
    "perl, behind a text that looks like a string": ("""perl -e 'print q(\\x27), {x}, q(\\x27)'""", "qx.run."),
    "sed": ("echo a | sed -n '{x}p'", "1ex"),
    "sed, a number": ("echo a | sed '{x}p'", "1e2"),
    "sed, in a block": ("echo a | sed '1{{{x}\n}}'", "erun"),
    "sed, behind a substitution": ("echo a | sed 's/a/run/{x}'", "e"),
    "sed, out of a substitution into a file": ("echo a | sed 's,a,{x},g'", "b,w"),
    "sed, out of an address": ("echo run | sed '\\,{x},p'", "u,w"),
    "sed, behind an option": ("echo a | sed -n -e '{x}p'", "ex"),
    "sed, in a variable": ('A={x}; echo a | sed -n "${{A}}p"', "ex"),
    "awk, a variable of the author's": (
        """awk -v n=run 'BEGIN {{ c = "echo"; n1 = {x}; system(c) }}'""", "c=n",
    ),
    "awk, a call": ("""awk 'BEGIN {{ print {x} ("run") }}'""", "system"),
    "python, a name that the author calls": (
        "python3 -c \"import os; a={x}; print('run')\"", "print=os.system",
    ),
    "python, an argument by name": (
        "python3 -c \"import os; print(max(['run', 'a'], {x}))\"", "key=os.system",
    ),
    "python, a name behind which arguments stand": ("python3 -c \"import os; {x}('run')\"", "os.system"),
    "python, from a here-document": ("python3 - <<END\nimport os\na = {x}\nprint('run')\nEND\n", "print=os.system"),
    "node, a name that the author calls": (
        "node -e \"let {{execSync}}=require('child_process'),f; a={x}; f('run')\"", "f=execSync",
    ),
}  # fmt: skip

# What people write, with values that they give: (command, values).
HONEST = {
    "python": ("python3 -c \"from train import f; f({x})\"", ["1", "1e-5", "-0.5", "True", "a.b", "1,2"]),
    "python, a string": ("python3 -c \"f('{x}', g(\\\"a{x}\\\"))\"", ["data/train-v2.csv", "s3://b/c", "a=b"]),
    "python, a module": ("python -c 'from {x} import main; main()'", ["train", "lib.train"]),
    "python, a function": ("python -c 'import jobs; jobs.{x}()'", ["train"]),
    "python, a format": ("python -c \"print(f'run {{1}}', '{x}')\"", ["data/a.csv"]),
    "python, a here-document": ("python3 - <<END\nf('{x}')  # it's {x}\nEND\n", ["data/a.csv", "1e-5"]),
    "python, a variable": ('D={x}; python3 -c "f(\'$D/a\')"', ["data/a.csv"]),
    "python, a path of the shell": ("python -c \"f('$(realpath {x})')\"", ["data/a.csv"]),
    "python, a script's option that looks like code's": ('python "$D/train.py" -c conf/{x}.yaml', ["a/b", "A=b"]),
    "python, in a variable": (
        'P=python3; $P -c "f(\'{x}\')"; $P "$D/{x}" "--a={x} b" -c c/{x}', ["data/a.csv", "A=b"],
    ),
    "R": ("Rscript -e \"x <- 1; rmarkdown::render('{x}', params=list(lr={x}))\"", ["1", "0.5"]),
    "R, a string": ("Rscript -e \"rmarkdown::render('{x}')\" && R -e 'f(\"{x}\")'", ["docs/a.Rmd", "2024-01-31"]),
    "julia": ("julia --project=. -e 'using Pkg; train(\"{x}\")'", ["data/a.csv"]),
    "sed, lines": ("sed -n '{x}p' a.txt", ["10,20", "5", "3,+2"]),
    "sed, lines that go": ("sed -i {x}d a.txt", ["10,20", "5"]),
    "sed, a value": ("sed -i 's/^lr: .*/lr: {x}/; s/a[0-9]*/{x}/g' a.yaml", ["1e-5", "train-v2.csv", "model"]),
    "sed, a path": ("sed -i -e '\\|{x}|d;s|DATA|{x}|g' -e \"s#OUT#{x}#\" a.yaml", ["data/train-v2.csv", "s3://b/c.csv"]),
    "sed, an address": ("sed -n '/^{x}/,/END/p' a.txt | sed '1d;/{x}/d;\\,{x},p'", ["train", "2024-01-31"]),
    "sed, a text": ("sed -i '1i # data: {x}' a.yaml; sed -n '/a/w out/{x}' a", ["data/train.csv"]),
    "sed, a file": ("sed -i 1d \"$DIR/{x}\"; sed -n p d/{x}", ["data/train.csv"]),
    "awk": ("awk -F, 'NR > {x} && /{x}/ {{ print $1, \"{x}\" }}' a.csv", ["10", "train", "data/a.csv"]),
    "awk, a pipe": ("awk '{{ print \"{x}\" | \"sort\" }}' a.csv", ["data/a.csv"]),
    "awk, a variable": ('N={x}; awk "NR > $N" a.csv', ["10", "n"]),
    "perl": ("perl -ne 'print if $. <= {x}' a.csv", ["10", "0.5"]),
    "perl, a string": ("perl -e \"f('{x}', 1)\"", ["data/train-v2.csv", "exec+a"]),
    "perl, a substitution": ("perl -pi -e 's|^x=.*$|x={x}|' a.ini", ["data/train-v2.csv", "1e-5"]),
    "perl, two substitutions": ("perl -pi -e 's/A/{x}/g; s/B/{x}/' a.ini", ["train-v2.csv"]),
    "perl, a match": ("perl -ne 'print if /{x}/' a; perl -ne 'print unless $n and /^id: {x}/i' a", ["train-v2.csv"]),
    "ruby, a match": ("ruby -ne 'print if /{x}/' a.csv", ["model", "train-v2.csv"]),
    "perl, a module": ("perl -Ilib -M{x} a.pl", ["List::Util"]),
    "ruby": ("ruby -e \"f({x}, 1)\"", ["10", "1e-5"]),
    "ruby, a string": ("ruby -e \"f('{x}')\"", ["data/a.csv"]),
    "node": ("node -e \"require('./a').f({x}, '{x}')\"", ["10", "model"]),
    "node, a module": ("node --import=./{x}.mjs a.mjs; node --import ./{x}.mjs a.mjs", ["a/b"]),
    "php": ("php -d memory_limit={x} a.php; php -r \"f('{x}');\"", ["512M", "2G"]),
    "lua": ("lua -e \"f('{x}', {x})\"", ["1", "model"]),
    "octave": ("octave --eval \"train('{x}')\"; octave --eval 'train({x})'", ["10", "1e-5"]),
    "gnuplot": ("gnuplot -e \"f='{x}'\" a.gp; gnuplot -e n={x} a.gp", ["10"]),
    "jq": ("jq '.{x} | .[\"{x}\"]' a.json", ["lr", "a.b", "data/a"]),
    "the code itself": ("perl -e {x}; sed -n {x} a; python -c {x}; awk {x} a", ["10,20p", "exec"]),
    "beside code": ("perl -e 1 {x}; sed s/a/b/ {x}; python3 -c 'f()' {x} | awk '{{ print }}'", ["A=b", "a/b"]),
}  # fmt: skip


def folder_with_programs(folder: Path) -> Path:
    """Return a folder that holds the programs and the commands of ours, and nothing else."""
    programs = folder / "bin"
    if not programs.exists():
        programs.mkdir()
        for name in PROGRAMS:
            if found := shutil.which(name):
                (programs / name).symlink_to(found)
        for name, text in {
            "python3": f'exec {sys.executable} "$@"',
            **dict.fromkeys(CANARIES, f": > {folder}/EVIL"),
        }.items():
            (programs / name).write_text(f"#!/bin/sh\n{text}\n")
            (programs / name).chmod(0o755)
    return programs


def starts_something(command: str, folder: Path) -> bool:
    """Run a command and tell whether it started one of ours, or wrote a file."""
    programs, inside = folder_with_programs(folder), folder / "inside"
    inside.mkdir(exist_ok=True)
    subprocess.run(
        [str(programs / "bash"), "-c", command], cwd=inside, env={"PATH": str(programs)}, stdin=subprocess.DEVNULL,
        capture_output=True, timeout=60,
    )  # fmt: skip
    found = [path for path in (folder / "EVIL", *inside.iterdir()) if path.exists()]
    for path in found:
        path.unlink()
    return bool(found)


def needs(command: str) -> None:
    name = next((name for name in ("perl", "gawk", "mawk", "node", "jq") if name in command), "bash")
    if shutil.which(name) is None:
        pytest.skip(f"no {name} here")


@pytest.mark.parametrize("case", STARTS)
def test_a_plain_value_that_would_start_a_command_is_refused(case, tmp_path):
    command, value = STARTS[case]
    needs(command)
    assert is_plain(value)
    assert starts_something(command.format(x=value), tmp_path)  # as MLflow fills it in
    with pytest.raises(ProjectError, match="'x' cannot be passed safely, as it stands in a program's code"):
        built(command, value)


@pytest.mark.parametrize("case", HONEST)
def test_an_honest_value_in_code_is_taken(case):
    command, values = HONEST[case]
    for value in values:
        assert is_plain(value)
        assert built(command, value) == command.format(x=value)


# Places of all kinds in code, for values that nobody thought of.
PLACES = (
    "perl -e 'print {x}'", "perl -e 'print \"a\", {x}, \"b\"'", "perl -e 'print \"{x}\"'", "perl -e \"f('{x}')\"",
    "echo aa | perl -pe 's/a/{x}/g'", "echo aa | perl -pe 's,a,{x},g; s/b/{x}/'", "echo aa | perl -pe 's/{x}/b/e'",
    "echo aa | perl -pe 's|{x}|run|ee'", "echo a | perl -ne 'print if /{x}/'", "perl -e 'print {x} . \"run\"'",
    "perl -e 'print q-{x}-, {x}'", 'A={x}; perl -e "print $A"', "perl <<END\nprint '{x}'; {x}\nEND\n",
    "perl -e 'print \"@{{[ {x} ]}}\"'", "perl -M{x} -e 1", "perl -e 'print 1 / 2, {x}, \"/\", {x}'",
    "echo a | sed -n '{x}p'", "echo a | sed '{x}'p", "echo a | sed 's/a/{x}/'", "echo a | sed 's,a,{x},g;p'",
    "echo a | sed 's/[/]/{x}/;s/a/run/{x}'", "echo a | sed '/{x}/p;/a/{x}'", "echo a | sed '/a/,/{x}/s/b*/{x}/g'",
    "echo a | sed 's/[^/]*/{x}/p'", "echo a | sed '{x}s/a/{x}/'", "echo a | sed 'y/a/{x}/'", "echo a | sed 'n;{x}'",
    "echo a | sed '1{{{x}\n}}'", "echo a | sed '1a {x}'", "echo a | sed '\\,{x},p'", "echo a | sed 's=a={x}='",
    "echo a | sed 's+a+{x}+;s@b@{x}@'",
    "awk 'BEGIN {{ print {x} }}'", "awk 'BEGIN {{ system({x} \"\") }}'", "awk 'BEGIN {{ print {x} (\"run\") }}'",
    "echo a | awk '/{x}/ {{ print \"{x}\" }}'", "mawk 'BEGIN {{ c = {x}; print c | \"cat\" }}'",
    "gawk -v n=run 'BEGIN {{ c = {x}; system(\"echo \" c) }}'", "echo a | gawk '{{ print {x}; next }} {x}'",
    "jq -n '.{x}'", "jq -n '{x}'x",
)  # fmt: skip
plain_values = st.lists(
    st.sampled_from(["exec", "system", "qx", "q", "run", "chr", "10", *"xewrsypab1"])
    | st.sampled_from("@%+=:,./-_"),
    min_size=1, max_size=7,
).map("".join)  # fmt: skip


@pytest.mark.parametrize("command", PLACES)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=plain_values)
@example(value="qx.run.")
@example(value="exec+run")
@example(value="1ex")
@example(value="run/e")
@example(value="b/w")
@example(value="b,e")
@example(value="c=n")
def test_a_plain_value_that_is_taken_starts_nothing(command, value, tmp_path):
    needs(command)
    try:
        line = built(command, value)
    except ProjectError:
        return
    assert not starts_something(line, tmp_path)
