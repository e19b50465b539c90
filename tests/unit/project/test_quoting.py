"""Whatever a value holds and wherever it stands, a real bash hands it to the program unchanged, or it is refused."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.command import FilledLater, build_command, check_parameters
from mlflow_projects.project.shell_syntax import is_plain
from mlflow_projects.project.spec import EntryPoint, Parameter, Project

# A program of the project; it writes its arguments and, without any, its input: each ends with a NUL.
SHOW = r"""#!/bin/bash
if (($#)); then printf '%s\0' "$@"; else cat; printf '\0'; fi
"""

# id: (command, what is shown; V stands for the value)
UNCHANGED = {
    "a word": ("./show {x}", ["V"]),
    "double quotes": ('./show "{x}"', ["V"]),
    "single quotes": ("./show '{x}'", ["V"]),
    "an option in quotes": ('./show "--value={x}"', ["--value=V"]),
    "the middle of a word": ("./show a\"b{x}c\"'d{x}e'f", ["abVcdVef"]),
    "quotes of another locale": ('./show $"a{x}b"', ["aVb"]),
    "beside a variable": ('A=1; ./show "${{A}}{x}$A"', ["1V1"]),
    "escaped quotes": (r"./show x=\'{x}\' \"{x}\"", ["x='V'", '"V"']),
    "another shell's script": ("bash -c './show {x}'", ["V"]),
    "a shell's options in one word": ('bash -oc pipefail "./show {x} a"', ["V", "a"]),
    "quotes in another shell's script": ("""bash -c './show "{x}" b'""", ["V", "b"]),
    "single quotes in double": ("""bash -c "./show '{x}'" """, ["V"]),
    "escaped quotes in double": (r'bash -c "./show \"{x}\""', ["V"]),
    "a script in a script": ("""env A=1 bash -euo pipefail -c "bash -c './show {x}'" """, ["V"]),
    "an argument of a script": ("""bash -c './show "$1"' name "{x}" """, ["V"]),
    "eval": ('eval "./show {x}"', ["V"]),
    "trap": ('trap "./show {x}" EXIT', ["V"]),
    "a variable": ('A="{x}" B={x}; export C="{x}"; ./show "$A" "$B" "$C"', ["V", "V", "V"]),
    "a variable of one command": ("""A="{x}" bash -c './show "$A"'""", ["V"]),
    "a block": ('set -e\n./show \\\n  --a "{x}" \\\n  --b {x}\n', ["--a", "V", "--b", "V"]),
    "a here-document": ("./show <<END\n$((1 + 1)) {{x}} {x} z\nEND\n", ["2 {x} V z\n"]),
    "a literal here-document": ("./show <<'END'\n$HOME {x}z\nEND", ["$HOME Vz\n"]),
    "a here-string": ('./show <<< "{x}"', ["V\n"]),
    "a substitution": ('./show "$(printf "%sx" "{x}")"', ["Vx"]),
    "a loop and a case": ('for i in "{x}"; do case "{x}" in zzzzzzz) ;; *) ./show "$i"; esac; done', ["V"]),
    "a condition": ('if [ "{x}" = "{x}" ] && [[ "{x}" == "{x}" ]]; then ./show "{x}"; fi', ["V"]),
    "a function": ('f() {{ ./show "$1" "{x}"; }}; f "{x}"', ["V", "V"]),
    "a pipe": ("printf %s {x} | ./show", ["V"]),
    "a block that goes on nowhere": ('./show \\\n  "{x}" \\\n', ["V"]),
    "options of a script of Python": (
        'python() {{ ./show "$@"; }}; python -u -W a b.py --env={x} --eval={x} -c "a{x}"',
        ["-u", "-W", "a", "b.py", "--env=V", "--eval=V", "-c", "aV"],
    ),
    "options of a module of Python": ('python() {{ ./show "$@"; }}; python -um b -c a{x}', ["-um", "b", "-c", "aV"]),
    "an argument of Python's code": ("python3 -c 'import sys; print(sys.argv[1], end=chr(0))' a{x}", ["aV"]),
    "options of a script of R": ('Rscript() {{ ./show "$@"; }}; Rscript a.R --env={x}', ["a.R", "--env=V"]),
    "a script behind the end of options": ("""bash -c - './show "{x}"' """, ["V"]),
    "files of sed": ('sed() {{ ./show "$@"; }}; sed -i p data/{x}', ["-i", "p", "data/V"]),
    "options of a script of perl": ('perl() {{ ./show "$@"; }}; perl -w a.pl -name={x}', ["-w", "a.pl", "-name=V"]),
    "text for a program in a folder": ('DIR=$PWD; "$DIR/show" --name="a {x} b"', ["--name=a V b"]),
    "text behind a time-out": ('timeout -s KILL 60 ./show "a {x}"', ["a V"]),
    "a test of numbers": ('[ "{x}" -gt 3 ] 2>/dev/null; [[ "{x}" =~ ^s3:// ]]; ./show "{x}"', ["V"]),
    "a declaration": ('declare X="{x}"; declare -r Y="{x}"; ./show "$X" "$Y"', ["V", "V"]),
    "a text of a part of a variable": ('X="{x}"; Z="${{X:0:8}}"; ./show "$X"', ["V"]),
    "a file of settings": ('echo "a: {x}" > a.yaml; ./show < a.yaml', ["a: V\n"]),
    "beside a log that is written": (
        'python3() {{ ./show "$@"; }}; python3 t.py --x {x} | tee t.log', ["t.py", "--x", "V"],
    ),
    "a file that is worked on": ('cat {x} 2>/dev/null > clean.csv; sed -i 1d clean.csv; ./show "{x}"', ["V"]),
    "a loop over a file": (
        'echo 1 > l; i=0; while read -r f; do i=$((i + 1)); ./show "$i$f" --x {x}; done < l', ["11", "--x", "V"],
    ),
    "a count of lines": ('N=$(cat < /dev/null | wc -l); ./show $((N + 1)) {x}', ["1", "V"]),
    "options of a project's program": ('./show --lang s -c "cfg {x}"', ["--lang", "s", "-c", "cfg V"]),
    "a starter's file and its options": (
        'torchrun() {{ shift; ./show "$@"; }}; torchrun t.py $(printf %s a) --t "a {x}"', ["a", "--t", "a V"],
    ),
    "a module that starts a file": (
        'python() {{ shift 3; ./show "$@"; }}; python -m torch.distributed.run t.py --t "a {x}"', ["--t", "a V"],
    ),
    "a script that keeps it, in plain surroundings": ("""eval "A='{x}'"; bash -c 'B="{x}"'; ./show "$A" """, ["V"]),
    "files of perl without a loop": ('perl() {{ ./show "$@"; }}; perl -w a.pl -np {x}', ["-w", "a.pl", "-np", "V"]),
    "behind an environment with the name of a program": (
        'conda() {{ shift 3; ./show "$@"; }}; conda run -n ray python t.py --t "run {x}"',
        ["python", "t.py", "--t", "run V"],
    ),
    "behind uv": ('uv() {{ shift 2; ./show "$@"; }}; uv run python t.py --t "run {x}"', ["t.py", "--t", "run V"]),
    "a script behind a redirection": ("""bash 2>log -c "./show '{x}'" """, ["V"]),
    "find with a wrapper": ("""find . -maxdepth 0 -exec nice bash -c "./show '{x}'" ';'""", ["V"]),
    "a variable of env": ("""env A="{x}" bash -c './show "$A"'""", ["V"]),
    "beside a program in a folder": ('A="{x}"; "$HOME/run" a 2>/dev/null; ./show "$A"', ["V"]),
    "fields of awk": (
        """awk -v n="{x}" '$1 > 5 {{ print n, $1 }}' /dev/null > out.csv 2>log; ./show "{x}" """, ["V"],
    ),
    "names of jq": ("""jq --arg n "{x}" '.name = $n' a.json > b.json 2>log; ./show "{x}" """, ["V"]),
    "a value for jq": ('jq() {{ ./show "$@"; }}; jq -r --arg a "{x}" .a', ["-r", "--arg", "a", "V", ".a"]),
    "a here-document beside a line that goes on": ('cat <<END > l\na \\\nb\nEND\n./show \\\n  "{x}"', ["V"]),
    "a script behind find": ("""find . -maxdepth 0 -exec sh -c './show "$0" "{x}"' {{}} ';'""", [".", "V"]),
    "input of sed and awk": (
        """echo "a {x}" | sed 's/e/e/;s/a b/e e/' | awk '1 || $1 {{ print | "sort -k 1" }}' > l; ./show {x}""", ["V"],
    ),
    "a file beside a tool's settings": ('echo "a: {x}" > a.yaml; sort -u a.yaml -o b.yaml; ./show "{x}"', ["V"]),
}  # fmt: skip

# Where a value that needs quotes would be read as more than a word: refused, or shown as it is.
GUARDED = {
    "code of Python": "python3 -c \"print('{x}')\"",
    "code of Python after options": "python3 -W ignore -X dev -Bc \"print('{x}')\"",
    "code of Python in the option's word": "python3 -c\"print('{x}')\"",
    "code of Python after options that only the shell knows": "A=-B; python3 $A -c \"print('{x}')\"",
    "code of node": "node --eval=\"f('{x}')\"",
    "a here-document in another shell's script": "bash -c 'cat <<END\n{x}\nEND\n'",
    "escaped quotes in backquotes": './show "`echo \\"{x}\\"`"',
    "an index in a list": "a=([{x}]=1); ./show a",
    "a local with attributes": 'f() {{ local -i a="{x}"; }}; f; ./show a',
    "a program that only the shell knows": "PY=python3; $PY -c \"print('{x}')\"",
    "a path that only the shell knows": '"$BASH" -c "./show {x}"',
    "options of Python in one word": "python3 -uW ignore -c \"print('{x}')\"",
    "a shell with options that reads its script": "bash -euo pipefail <<'END'\nshow \"{x}\"\nEND\n",
    "Python with arguments that reads its code": "python3 - a.csv <<END\nprint('{x}')\nEND\n",
    "source": "source /dev/stdin <<END\nshow \"{x}\"\nEND\n",
    "eval behind another word": 'command eval "./show {x}" b',
    "trap behind an option": 'trap -- "./show {x}" EXIT',
    "sed behind another word": "echo a | xargs sed -n 's/a/{x}/'",
    "arithmetic": "./show $(( {x} + 1 ))",
    "an arithmetic command": "(( {x} > 1 )) || ./show a",
    "an arithmetic test": "[[ {x} -eq 1 ]] || ./show a",
    "a test of a variable": "test -v {x} || ./show a",
    "a subscript": "a[{x}]=1; ./show a",
    "let": "let a={x}; ./show a",
    "declare": 'declare -i a="{x}"; ./show a',
    "backquotes": "./show `printf %s {x}`",
    "a comment": "./show a # {x}",
    "a comment behind a line that goes on": "./show a \\\n# {x}",
    "a comment in a substitution": "./show $(\n# {x}\necho a)",
    "a comment beside a here-document": "cat <<END\na\nEND\n# {x}",
    "after a backslash": r"./show \{x}",
    "after a backslash in quotes": r'./show "\{x}"',
    "after a dollar sign": "./show ${x}",
    "a variable's default": './show "${{A:-{x}}}"',
    "a variable's name": "{x}=1; ./show a",
    "input of a shell": "echo {x} | bash",
    "a here-document for a shell": "bash <<'END'\nshow \"{x}\"\nEND\n",
    "a here-string for a shell": 'bash <<< "./show {x}"',
    "a here-document for a pipe": "cat <<END | bash\n{x}\nEND\n",
    "a file for a shell": "bash <(echo {x})",
    "a file for a shell behind another word": "env bash <(echo {x})",
    "input of a shell from a file": "bash < <(echo {x})",
    "output to a shell": "echo {x} > >(bash)",
    "input of a shell from a function": "f() {{ echo {x}; }}; f | bash; bash -c 'echo \"{x}\"' | bash",
    "words of eval": "eval ./show {x}",
    "a script from pieces": 'A=show; bash -c "$A {x}"',
    "a here-document beside backquotes": "./show <<END\n`{x}`\nEND\n",
    "a here-document's end": "./show <<{x}\na\n",
    "a here-document without tabs": "./show <<-END\n\ta {x}\n\tEND\n",
    "sed": 'echo a | sed "s/a/{x}/"',
    "awk": "awk 'BEGIN {{ print \"{x}\" }}'",
    "quotes without an end": './show "{x}',
    "a variable in an arithmetic test": "A={x}; [[ $A -gt 5 ]] || ./show a",
    "a variable in arithmetic": 'A="{x}"; ./show $((A + 1))',
    "a variable of whole numbers": 'declare -i A; A="{x}"; ./show $A',
    "a variable as a prompt": 'A="{x}"; ./show "${{A@P}}"',
    "a variable's name in a variable": 'A="{x}"; ./show "${{!A}}"',
    "a variable in a subscript": 'a=(1); A="{x}"; ./show "${{a[$A]}}"',
    "a variable in another shell's script": 'A="{x}"; bash -c "./show $A"',
    "a variable in eval": 'A="{x}"; B=$A; for C in $B; do eval "./show $C"; done',
    "a variable in code": 'A="{x}"; python3 -c "print($A)"',
    "a variable as the command": 'A="{x}"; $A',
    "a variable for a shell": 'A="{x}"; echo "$A" | bash; bash <<< "./show $A"',
    "a variable of another shell": "export A=\"{x}\"; bash -c '[[ $A -gt 5 ]]' || ./show a",
    "what a shell runs first": 'BASH_ENV="{x}" bash -c "./show a"',
    "a function's argument": 'f() {{ (( $1 > 5 )); }}; f "{x}" || ./show a',
    "an argument that a function hands on": 'f() {{ local a=$1; eval "$a"; }}; A="{x}"; f "$A"',
    "the arguments": 'set -- "{x}"; eval "$1"',
    "an argument of a script that reads it as code": """bash -c 'eval "$1"' name "{x}" """,
    "what is read": 'read A <<< "{x}"; ./show $((A))',
    "what is read in a loop": 'echo "{x}" | while read -r A; do eval "$A"; done',
    "what xargs hands to a shell": 'echo {x} | xargs -I% sh -c "./show %"',
    "a program that tar runs": 'tar -cf log -I "cat {x}" /dev/null',
    "a command of flock": 'flock . -c "./show {x}"',
    "an alias of git": 'git -c "alias.a=!./show {x}" a',
    "a setting of make": """printf 'all:\\n\\t@echo $(A)\\n' | make -f - A="{x}" """,
    "a variable of make": """printf 'all:\\n\\t@echo $(A)\\n' | A="{x}" make -f -""",
    "code of perl": 'echo a | perl -0777pe "s/a/{x}/"',
    "code of timeit": "python3 -m timeit -n1 -s \"a='{x}'\"",
    "a here-document that begins with a backslash": "cat <<END\n\\section{{{x}}}\nEND\n",
    "a here-document before another command": "cat <<END &&\nlr: {x}\nEND\n./show a",
    "a here-document before a pipe": "cat <<END |\nlr: {x}\nEND\ncat",
    "a redirection that is read twice": "./show a >& {x}",
    "a redirection to a variable": 'L="{x}.log"; exec >& "$L"; ./show a',
    "a file that a shell runs": 'echo "./show {x}" > run.sh && bash run.sh',
    "a here-document that a shell runs": "cat > run.sh <<END\n./show {x}\nEND\nbash run.sh",
    "a file that is sourced": 'echo "A={x}" > .env && source .env',
    "a file that Python imports": "printf 'a = \"{x}\"' > config.py; python3 -c 'import config'",
    "a file that a shell reads": 'echo "./show {x}" | tee run.txt; bash < run.txt',
    "a Makefile": "printf 'all:\\n\\techo {x}\\n' > Makefile; make",
    "input of ssh": 'ssh() {{ bash; }}; echo "./show {x}" | ssh host',
    "a here-document for ssh": 'ssh() {{ bash; }}; ssh host <<END\n./show {x}\nEND\n',
    "a script of a batch system": 'sbatch() {{ bash -c "${{1#--wrap=}}"; }}; sbatch --wrap="./show {x}"',
    "text for a program that is not known": 'hyperfine "./show {x}"',
    "an option of Python": "python3 {x}.py",
    "ssh behind options of a wrapper": 'ssh() {{ bash -c "$2"; }}; timeout -s KILL 9 ssh host "./show {x}"',
    "the environment of make": """printf 'all:\\n\\t@echo $(A)\\n' > M; export A="{x}"; make -f M""",
    "a variable of env for make": """printf 'all:\\n\\t@echo $(A)\\n' > M; env A="{x}" make -f M""",
    "a target of make": """printf 'a-%%:\\n\\t@echo $*\\n' > M; make -f M a-{x}""",
    "a whole target of make": """printf 'a-%%:\\n\\t@echo $*\\n' > M; make -f M {x}""",
    "an offset in a list": 'N="{x}"; F=(1 2); ./show "${{F[@]:0:$N}}"',
    "an offset in the arguments": 'N="{x}"; set -- 1 2; ./show "${{@:N}}"',
    "a name for declare": 'N="{x}"; declare "$N=1"',
    "SQL": "sqlite3 :memory: \"select '{x}'\"",
    "arguments through a variable": 'A="{x}"; set -- "$A"; eval "./show $1"',
    "arguments of a script through a variable": """A="{x}"; bash -c 'eval "$1"' name "$A" """,
    "a variable of env in eval": """env A="{x}" bash -c 'eval "$A"'""",
    "what a shell of env runs first": "env BASH_ENV={x} bash -c true",
    "a variable by its default": 'A="{x}"; : "${{B:=$A}}"; eval "$B"',
    "what xargs hands to Python": 'echo "{x}" | xargs -I% python3 -c "print(%)"',
    "a command for git": 'GIT_SSH_COMMAND="bash -c {x}" git ls-remote ssh://git@127.0.0.1:1/a',
    "sed that cannot be parsed": "[ a b ]; echo a | sed s/a/{x}/",
    "a file that is renamed and run": 'echo "./show {x}" > run.tmp; mv run.tmp run; bash run',
    "a file that is copied into another": 'echo "{x}" > a; cat head a > run; chmod +x run; ./run',
    "a file whose text is run": 'echo "./show {x}" > a; bash -c "$(cat a)"',
    "a file whose text is evaluated": 'echo "{x}" > a; A=$(<a); eval "$A"',
    "a file that becomes the words of env": 'echo "A={x}" > .env; env $(cat .env) python b.py',
    "an exported variable in a script that is filled in": 'export A="{x}"; envsubst < a | bash',
    "a file that a dot reads": 'echo "export A={x}" >> env.sh; . ./env.sh',
    "a variable in a file that is run": 'C="./show {x}"; echo "$C" > run; bash run',
    "the name of a script": """bash -c 'eval "$0"' "{x}" """,
    "a shell elsewhere behind a launcher": "conda run -n e --cwd d ssh h ./show {x}",
    "a shell elsewhere behind a launcher and a wrapper": "conda run -n e sudo -n ssh h ./show {x}",
    "Python behind a launcher": "uv() {{ shift; $@; }}; uv run python3 {x}.py",
    "Python behind options with a value": "python3 -W ignore {x}.py",
    "perl behind options with a value": "perl -I lib {x}.pl",
    "ssh behind a launcher": 'conda() {{ "${{@:4}}"; }}; ssh() {{ bash -c "$2"; }}; conda run -n e ssh h "a {x}"',
    "ssh behind find": "find . -maxdepth 0 -exec ssh host \"./show {x}\" ';'",
    "words of find": 'D={x}; find $D -name a; find . -name $D',
    "a substitution in find": 'find $(echo "{x}") -maxdepth 0',
    "words that xargs hands to find": 'echo "{x}" | xargs find',
    "words of tar": 'E="--exclude={x}"; tar cf /dev/null $E show',
    "an option of sed": "sed -s 1d show {x}.csv",
    "a match": '[[ "{x}" =~ ^a(.*)$ ]] && bash -c "./show ${{BASH_REMATCH[1]}}"',
    "an option of a function": 'm() {{ while getopts x: o; do A="$OPTARG"; done; eval "./show $A"; }}; m -x "{x}"',
    "the working folder": 'mkdir -p "./{x}" && cd "./{x}" && bash -c "cd $PWD"',
    "what find puts into a script": "mkdir -p \"a{x}\"; find \"a{x}\" -exec sh -c 'echo {{}}' ';'",
    "code of IPython": "python3 -m IPython -c \"print('{x}')\"",
    "a module that is imported": "cat > config.py <<END\na = \"{x}\"\nEND\npython3 -c 'import config'",
    # Nobody can follow a value through these; what is kept is refused beside them.
    "ANSI-C quotes": r"./show $'a\tb{x}\x41'",
    "an array": 'a=(b "{x}"); ./show "${{a[1]}}"',
    "beside arithmetic": 'N=1; N=$((N + 1)); A="{x}"; [[ $N -gt 1 ]] && ./show $N "$A" a{x}',
    "beside a program in a variable": 'A="{x}"; P=./show; $P "$A" b{x}',
    "a loop that counts": 'for ((i=0; i<2; i++)); do X="{x}"; ./show $i "$X"; done',
    "a function beside arithmetic": 'log() {{ ./show "$@"; }}; N=1; log "a {x}"; N=$((N + 1)); ./show $N',
    "settings beside what is sourced": 'echo "n: {x}" > env.yaml; echo > a; source ./a; ./show < env.yaml',
    "a list of words as the command": 'C=(./show --x {x}); "${{C[@]}}"',
    "a function that runs its arguments": 'run() {{ "$@"; }}; run ./show --x {x}',
    "a field of a table": 'declare -A m; m[a]="{x}"; ./show "${{m[a]}}"',
    "a seed": "RANDOM={x}; ./show a",
    "a seed from a variable": 'S="{x}"; RANDOM=$S',
    "a seed that is exported": 'export RANDOM="{x}"; ./show a',
    "a seed in a loop": 'for RANDOM in "{x}"; do ./show a; done',
    "a seed that is read": 'read RANDOM <<< "{x}"; ./show a',
    "a position": "OPTIND={x}; HISTCMD={x}; ./show a",
    "a file whose name only the shell knows": 'T=$(mktemp); echo "./show {x}" > "$T"; bash "$T"',
    "a file whose name is in a variable": 'F=run; echo "./show {x}" > $F; bash $F',
    "a here-document in a folder that only the shell knows": (
        'OUT=.; cat > "$OUT/run.sh" <<EOF\n./show {x}\nEOF\nbash "$OUT/run.sh"'
    ),
    "a file that a function writes": 'w() {{ echo "$1"; }}; w "./show {x}" > run; bash run',
    "a file that a function copies": 'w() {{ cat > run; }}; echo "./show {x}" | w; bash run',
    "output that goes to a file": 'exec 3>&1 > run; echo "./show {x}"; exec >&3; bash run',
    "a file that bash begins with": 'echo "export A={x}" >> .bashrc; HOME=. bash -ic true',
    "quotes that only bash reads": r"./show $'it\'s {x}'",
    "a word beside quotes that only bash reads": r"""./show $'\'' "{x}" $'\''""",
    "such quotes in a script of sh": r"sh -c './show $'\''it\\'\''s {x}'\'''",
    "an element that is unset": """A="{x}"; a=(1 2); unset 'a[A]'""",
    "an element that is read": """A="{x}"; a=(1 2); read 'a[A]' <<< 1; test -v 'a[A]'; printf -v 'a[A]' b""",
    "an index in a list from a variable": 'A="{x}"; a=([A]=1); a+=([$A]=1)',
    "a local with two attributes": 'f() {{ local -r -i n=$1; ./show $n; }}; f "{x}"',
    "a name with two attributes": 'f() {{ local -r -n r=$1; ./show $r; }}; f "{x}"',
    "a global of whole numbers": 'declare -g -i N; N="{x}"; ./show $N',
    "printf behind another word": "builtin printf -v {x} a",
    "printf with its option": "printf -v{x} a",
    "the format of printf": "printf {x} a",
    "a test behind another word": "command test -v {x} || ./show a",
    "wait": "wait -n -p {x}; ./show a",
    "a variable that printf sets": 'builtin printf -v A %s "{x}"; eval "$A"',
    "a loop over the arguments": 'set -- "{x}"; for a; do eval "$a"; done',
    "input of a shell's script": 'echo "{x}" | bash -c "$(cat)"; echo "{x}" | bash -c "$(</dev/stdin)"',
    "a coprocess": 'coproc bash; echo "{x}" >&"${{COPROC[1]}}"; sleep 0.1',
    "an option of a shell in a variable": 'echo > run.sh; A="{x}"; bash $A run.sh',
    "the last word": ': "{x}"; eval "$_"',
    "an alias": "shopt -s expand_aliases\nalias run=eval\nrun {x}",
    "a file that is filled in for a shell": "echo 'echo $A' > t; set -a; A=\"{x}\"; envsubst < t | bash",
    "what git starts": 'export GIT_EXTERNAL_DIFF="{x}"; ./show a',
    "a function of another shell": 'env "BASH_FUNC_ls%%={x}" bash -c ls',
    "a sign behind a backslash": './show \\ #"{x}"',
    "a sign behind a line that goes on": './show a\\\n#"{x}"',
    "a sign behind a carriage return": './show a\r# "{x}"',
    "a redirection over two lines": "./show a >&l\\\n{x}",
    "arithmetic over two lines": "./show $(\\\n( {x} + 1 ))",
    "a subscript over two lines": "a\\\n[{x}]=1; ./show a",
    "let over two lines": "le\\\nt a={x}; ./show a",
    "a substitution over two lines": './show "$\\\n({x})"',
    "a here-document's end with a backslash in quotes": "./show <<'E\\F'\na {x}\nE\\F\n",
    "words glued to a program's text": 'hyperfine() {{ bash -c "$1"; }}; hyperfine "./show "{x}',
    "words of another shell elsewhere": 'pdsh() {{ shift 2; bash -c "$*"; }}; pdsh -w h ./show {x}',
    "a script behind a redirection in a list": """true && bash 2>log -c './show "{x}"'""",
    "a shell behind a redirection and a sign": """! bash 2>log -c "./show '{x}'" """,
    "code behind a redirection": """true && python3 2>log -c "print('{x}')" """,
    "an argument behind a redirection": """f() {{ eval "$1"; }}; f > log "{x}"; bash -c 'eval "$1"' n > log "{x}" """,
    "a variable of env behind a redirection": """env > log A="{x}" bash -c 'eval "$A"'""",
    "an end of a here-document in the value": (
        "cat > c.yaml <<'END'\nname: {x}\nEND\necho that\\'s it; [ a = b ] # don't forget"
    ),
    "a test whose time is taken": "time [[ {x} -eq 1 ]]",
    "a subscript whose time is taken": "time a[{x}]=1",
    "a loop whose time is taken": 'time for i in "{x}"; do [[ $i -gt 5 ]]; done',
    "a loop behind a sign": '! for A in "{x}"; do eval "$A"; done',
    "a subscript over two lines in a substitution": './show "$( a\\\n[{x}]=1 )"',
    "a substitution that becomes a command": "$(echo {x})",
    "a substitution behind a wrapper": "timeout 5 $(echo {x}); nice $(echo {x})",
    "a substitution before env's program": "env -i $(echo {x}) bash -c true",
    "a substitution that becomes options of a shell": "sh $(echo {x})",
    "braces that become words": 'bash {{-c,"./show {x}"}}',
    "what a function says to a shell": 'f() {{ echo "{x}"; }}; f | bash',
    "what a function says to a variable": 'f() {{ echo "{x}"; }}; A=$(f); eval "$A"',
    "what a function says in arithmetic": 'f() {{ echo "{x}"; }}; [[ $(f) -gt 5 ]]; ./show $(( $(f) ))',
    "a name that a function cuts": 'f() {{ basename "{x}" .csv; }}; N=$(f); bash -c "./show $N"',
    "a here-document in a function": 'f() {{ cat <<END\n{x}\nEND\n}}; f | bash',
    "input of a script that reads it": """bash -c 'read A; eval "$A"' <<< "{x}" """,
    "input of a script that hands it on": 'echo "{x}" | sh -c "cat | bash"',
    "input of a script that evaluates it": """echo "{x}" | bash -c 'eval "$(cat)"'""",
    "another name of the input": 'echo "{x}" | bash /dev/fd/0; echo "{x}" | bash /proc/self/fd/0',
    "a setting of a container": """docker run --env=A="{x}" i bash -c 'eval "$A"'""",
    "a setting in quotes": """env "A"="{x}" bash -c 'eval "$A"'""",
    "a whole setting of env": "env {x} bash -c true",
    "what env says to a file": 'export A="{x}"; env > .env; . ./.env',
    "a file that a program writes": 'date +"{x}" > run; bash run; basename "{x}" > run; bash run',
    "a file that a script in a word runs": 'echo "{x}" > run.txt; eval "bash run.txt"; trap "bash run.txt" EXIT',
    "a file of sed's code": 'echo "{x}" > s.txt; echo a | sed -f s.txt',
    "a name of a folder": 'mkdir -p "d/{x}"; for d in d/*; do bash -c "echo $d"; done',
    "the command itself": """trap 'bash -c "echo $BASH_COMMAND"' ERR; ls {x}""",
    "arithmetic in a here-document": "N={x}; cat > p.yaml <<END\nepochs: $((N * 2))\nEND",
    "backquotes in a here-document": 'A={x}; cat <<END\n`eval "$A"`\nEND',
    "code of flock that reads a variable": """A={x}; export A; flock . -c 'eval "$A"'""",
    "code of tar that reads a variable": """A={x}; export A; tar -cf /dev/null -I 'bash -c "$A"' .""",
    "a literal here-document for a shell": "A={x}; export A; cat <<'END' | bash\neval \"$A\"\nEND",
    "code of find that reads a variable": """export A={x}; find . -maxdepth 0 -exec nice bash -c 'eval "$A"' ';'""",
    "another shell": """csh() {{ bash "$@"; }}; A={x}; csh -c "$A"; csh -c "./show {x}" test""",
    "a test that becomes one of names": 'A=-v; B="{x}"; test ! "$A" "$B"',
    "a launcher of shells": 'torchrun() {{ shift; "$@"; }}; torchrun --no-python bash -c "./show \'{x}\'"',
    "IPython behind a wrapper": """ipython() {{ python3 "$@"; }}; timeout 60 ipython -c "print('{x}')" test""",
    "sed with a suffix": 'echo a > i.txt; sed -i.temp "s/a/{x}/" i.txt',
    "awk with a variable": 'awk -vseed=1 "BEGIN {{ print \\"{x}\\" }}"',
    "perl with a module": "perl -MEncode -e \"print '{x}'\"",
    "timeit of another module": "python3 -m cProfile -m timeit -n1 \"a='{x}'\"",
    "a shell in a variable": '"$BASH" -c "./show{x}"; P=bash; $P -c run{x}',
    "xargs and Python": "echo {x} | xargs -I% python3 %.py",
    "a form feed behind a here-document's end": "cat <<END\f\nEND\n./show '{x}'",
    "an option of tar in a variable": 'A="{x}"; tar cf log "$A.csv" show',
    "an option of split that is cut": 'echo a | split --filt="{x} #" -',
    "a command of zip": 'zip -q -T -TT "true {x}" a.zip show',
    "a test that cannot be parsed": "[ a b ]; [[ {x} -eq 1 ]] || ./show a",
    # What the script of a word keeps, or hands on, comes to the script around it.
    "a file that a script in a word writes": """bash -c 'echo "./show {x}" > run.txt'; bash run.txt""",
    "a variable in a file that a script in a word writes": (
        """export A="{x}"; bash -c 'echo "$A" > run.txt'; bash run.txt"""
    ),
    "a variable that eval sets": 'eval "A={x}"; bash -c "./show $A"',
    "a variable that eval sets, in a test": 'eval "export A={x}"; [[ $A -gt 1 ]]',
    "a function of the script around": """f() {{ (( $1 > 5 )); }}; eval "f '{x}'" """,
    "a function that is exported": """f() {{ (( $1 > 5 )); }}; export -f f; bash -c "f '{x}'" """,
    "a function that trap calls": """f() {{ bash -c "echo $1"; }}; trap "f {x}" EXIT""",
    "an argument of a script that is read": """bash -s -- "{x}" <<'END'\neval "$1"\nEND\n""",
    # A program that is not known gets text, or more words than one, through the shell.
    "a variable of text for a program that is not known": 'A="./show {x}"; hyperf "$A"',
    "a function of a program that is not known": 'f() {{ hyperf "$1"; }}; f "./show {x}"',
    "words that become text": 'f() {{ hyperf "$*"; }}; f ./show "{x}"',
    "a function of a container": """run() {{ docker run i "$@"; }}; S=bash; run $S -c "./show '{x}'" """,
    "options of a container": 'A="-e A={x}"; docker run $A i',
    "options of a starter": 'A="--nproc {x}"; torchrun $A t.py',
    "options of a starter in a substitution": 'torchrun $(echo "--nproc {x}") t.py',
    "options of a server": 'A="-w {x}"; gunicorn $A app:app',
    "text for a module that is a program": """python3 -m dotenv run "./show {x}" """,
    "a shell behind a program of the project": """./show bash -c "./show '{x}'" """,
    "a shell among options": './show --lang sh -c "cfg {x}"',
    "text as a program behind a launcher": "pixi run './show {x}'",
    "a file of requirements": 'echo "a=={x}" > r.txt; pip install -r r.txt; python3 -m pip install -r r.txt',
    # Programs with ways of their own to be told code.
    "names of files for a loop of perl": "perl -ne print {x}; perl -pe s/a/b/ d/{x}; perl -wnE say a{x}",
    "a setting of PHP": "php -d memory_limit={x} a.php",
    "numbers of other shells": """zsh -c '[ "{x}" -gt 3 ]'; ksh -c 'printf %d "{x}"'""",
    "a test that sh takes for commands": """sh -c 'A="{x}"; [[ a =~ b|$A ]]'""",
    "a variable in a test that sh takes for commands": """export A="{x}"; sh -c '[[ a =~ b|$A ]]'""",
    "variables that an old dash sets": """sh -c 'B="{x}"; export C=$B; bash -c true'""",
    "what sh evaluates beside such a test": """export A="{x}"; sh -c '[[ -f a ]]; eval "`printenv A`"'""",
    "arguments of other shells": """zsh -c '[ "$1" -gt 3 ]' name "{x}" """,
    "a folder elsewhere": "scp a host:d/{x}; rsync -a b host:d/{x}",
    "a step of dvc": "dvc stage add -n a ./show {x}",
    "a program of honcho": "python3 -m honcho run ./show {x}",
    "code of matlab": 'matlab -batch "lr={x},train"; gnuplot -e lr={x} a.gp',
    "code of jq": 'jq ".a = \\"{x}\\"" a.json',
    "code of sed in one word": 'echo "s/a/{x}/" | sed -f- show; echo "s/a/{x}/" | sed --file=- show',
    "a file that sort writes": 'echo "./show {x}" | sort -o run.txt; bash run.txt',
    "files that split writes": 'echo "./show {x}" | split - run; bash runaa',
    "input behind a program of Python": 'python3 -i show <<< "{x}"',
    "options in the environment": 'MAKEFLAGS="-j {x}" ./show a',
    # Options that are cut short, or stand elsewhere.
    "a command of tar that is cut": "tar cf a.tar show; tar xf a.tar --to-com={x}",
    "a program of tar that is cut": 'tar cf a.tar --use-compress-prog "cat {x}" show',
    "an action of tar that is cut": "tar cf a.tar --checkpoint=1 --checkpoint-act=exec={x} show",
    "a program of tar without a dash": 'tar cIf "cat {x}" a.tar show',
    "a program for tar's next volume": 'tar -cML 10 -F "./next {x}" -f a.tar show',
    "a filter of split that is cut": "echo a | split --filt={x} -",
    "a program of sort that is cut": "seq 1 100 | sort -S 1b --comp={x}",
    "a line for env that is cut": "env --split={x}",
    "a pager of git": "git init -q .; git grep --no-index -O{x} printf",
    "a program of git that is cut": "git init -q .; git ls-remote --upload-p={x} .",
    "a setting of git's clone": "git clone --config=core.sshCommand={x} ssh://h/a b",
    "a program as an address of git": "git ls-remote ext::{x}",
    "awk behind a long option": "echo a | gawk --assign a=1 /{x}/; echo a | awk --field-separator , /{x}/",
    "awk behind options in one word": "echo a | gawk -Pv a=1 /{x}/",
    "jq behind a name": "echo 1 | jq --arg a 1 .{x}",
    "sed behind a long option": "echo a | sed --line-length 5 s/a/{x}/",
    "a debugger of perl": "perl -d:{x} a.pl",
    "fields of perl": "echo a | perl -wF/{x}/ a.pl",
    "a module of node": "node --import={x} a.mjs; node --test-reporter={x} --test",
    "a setting of PHP in a long option": "php --define auto_prepend_file={x} a.php",
    # Programs that take code from words of any form.
    "a command of vim": "vim -es +{x} +qa!; vim -es -c{x} +qa!; vim -es --cmd {x}a +qa!",
    "a command of gdb": "gdb -batch -eval-command={x}",
    "a name of m4": "m4 -DA={x} show",
    "an address of socat": "socat - EXEC:{x}",
    "code of dc": "dc -e {x}p",
    "code of groovy": "groovy -e x={x}",
    "a variable of ansible": "ansible-playbook a.yml -e a={x}",
    "a program for an error of java": 'java -XX:OnError="kill {x}" -jar a.jar',
    "options of java in spark": 'spark-submit --conf "spark.driver.extraJavaOptions=-Da={x}" a.py',
    "a call for gunicorn": """gunicorn "app:create('{x}')" """,
    "a shell of AWS": 'aws ssm send-command --parameters commands="./show {x}"',
    "a shell elsewhere by another name": "rsh host ./show {x}; clush -w a ./show {x}",
    "other machines of deepspeed": "deepspeed --hostfile h t.py --a {x}",
    # Texts and files that come to code in other ways.
    "a here-document whose end is behind a backslash": "cat <<E\nfoo\\\nE\n'{x}'\nE\n",
    "a here-document whose end is made of two lines": "cat <<EF\nE\\\nF\n: '{x}'\nEF\n",
    "the whole command in a variable": """./show {x}; python3 -c "print('''$BASH_EXECUTION_STRING''')" """,
    "the whole command in a file": './show {x}; tr "\\0" "\\n" < /proc/$$/cmdline >run; bash run',
    "a file that sort writes by an option in one word": 'echo "./show {x}" | sort -orun.txt; bash run.txt',
    "a file that uniq writes": 'echo "./show {x}" | uniq - run; bash run',
    "a file that awk writes": """awk -v a="{x}" 'BEGIN {{ print a > "run" }}'; bash run""",
    "a file that sed writes": 'echo "{x}" | sed -n "w run"; bash run',
    "a file that find writes": 'find . -fprintf run "{x}"; bash run',
    "a file behind what looks like a number": "./show -np2>&1{x}",
    "the arguments behind nothing": 'set --; $@set -- "{x}"; for a; do eval "$a"; done',
    "the arguments behind no argument": '$1set -- "{x}"; for a; do eval "$a"; done',
    "a test behind nothing": "$A test -v {x}; test$A -v {x}; $A command test -v {x}",
    "code of awk that reads a variable": """export A="{x}"; awk 'BEGIN {{ system("eval \\"$A\\"") }}'""",
    "a function in a launcher's name": "uv() {{ shift; $@; }}; uv run {x}; uv run {x}.py",
    "a variable before a program's name": 'A="{x}"; $A./show a; $A/show a',
    "a seed by a variable's name": 'S="{x}"; RANDOM=S; ./show a',
    "a test by a variable behind a sign": 'A=-v; test ! "$A" {x}; test \\( "$A" {x} \\); test a -a "$A" {x}',
    "a substitution before a program's name": "$(echo {x})/show a",
    "a variable of another shell before a program's name": """D="{x}" bash -c '$D/show a'; eval "D='{x}'"; $D/show""",
    "a seed that printf sets": 'A={x}; printf -v RANDOM A',
    "a function that eval makes": """eval 'f() {{ eval "$*"; }}'; f {x}""",
    "a function in a variable": 'f() {{ eval "$*"; }}; F=f; $F {x}',
    "a link to the input": 'ln -s /dev/stdin run; echo "{x}" | python3 run',
    "a file of docker": 'echo "RUN {x}" > Dockerfile; docker build .',
    "parameters of dvc": 'echo "lr: {x}" > params.yaml; dvc repro',
    "what lua runs first": 'LUA_INIT_5_4="{x}" ./show a',
    "a compiler": 'CC="{x}" ./show a; export BROWSER="{x}"; VIMINIT="{x}" ./show a',
    # A value that ends the name of an option, or stands where a program takes a command for a file.
    "an option that a value ends": "tar -c{x} -f a.tar show; tar --{x} -cf a.tar show",
    "options of Python that a value ends": "python3 -u{x} show",
    "an option of node that a value ends": "node --{x} show",
    "options of awk that a value ends": "gawk -{x} show",
    "options of sed that a value ends": "sed -E{x} show",
    "options of env that a value ends": "env -i{x} bash",
    "an option of java that a value ends": "java -XX:{x} -version",
    "a command that ed takes for a file": "ed -s {x}; ed {x}",
    "a command that vim takes for a file": "vim -es {x} +q",
    "a value of a macro": (
        "printf '#include <stdlib.h>\\nint main(){{return A;}}' > t.c; gcc -w -DA={x} t.c -o t && ./t"
    ),
    "an alias that git keeps": "git init -q .; git config alias.a !{x}; git a",
    "a function with a path": './show() {{ eval "$1"; }}; ./show {x}',
    "a function for what is not found": 'command_not_found_handle() {{ bash -c "$2"; }}; mlflow_none {x}',
    "the name that a shell gets": """exec -a "{x}" bash -c 'eval "$0"'""",
    "a function that is not there": "wait() {{ :; }}; unset -f wait; wait -n -p {x}",
    "names of files that curl and zip write": (
        'curl -so "{x}" file:///dev/null; zip -q "d{x}" show; for f in *; do eval "echo $f"; done'
    ),
    "a file that becomes an option": 'git init -q "{x}"; tar cf a.tar *',
    # Code of the author that has its words or its input run.
    "input of sed that runs it": """echo "{x}" | sed 's/^/ls /e'""",
    "input of sed whose first line runs": 'echo "{x}" | sed -n 1e',
    "input of sed in one word": "echo {x} | sed --expression=1e; echo {x} | sed -e1e",
    "input of sed behind an address": "echo {x} | sed '\\,t,e'",
    "a here-document for sed that runs it": "sed -e e <<END\n{x}\nEND",
    "input of awk that runs it": """echo "{x}" | awk '{{ system($0) }}'""",
    "input of awk for a shell": """echo "{x}" | awk '{{ print | "bash" }}'""",
    "a variable of awk that runs it": """awk -v a="{x}" 'BEGIN {{ system("ls " a) }}'""",
    "a variable of awk that reads from it": """awk -v a={x} 'BEGIN {{ "ls " a | getline }}'""",
    "an argument of awk that runs it": """awk 'BEGIN {{ system(ARGV[1]) }}' {x}""",
    "a kept value for awk that runs it": """A="{x}"; awk -v a="$A" 'BEGIN {{ system("ls " a) }}'""",
    "an argument of perl that runs it": """perl -e 'system("ls $ARGV[0]")' {x}""",
    "an argument of perl that becomes a pipe": """perl -e 'open F, "$ARGV[0]|"' {x}""",
    "an argument of Python that runs it": "python3 -c 'import os, sys; os.system(\"ls \" + sys.argv[1])' {x}",
    "a variable for Python that runs it": "export A={x}; python3 -c 'import os; os.system(os.environ[\"A\"])'",
    "a folder's name that find puts into a script": "mkdir -p \"d/{x}\"; find d -exec sh -c 'ls {{}}' ';'",
    # Programs that are not here are known by their manuals.
    "a name that becomes code of a notebook": 'papermill a.ipynb b.ipynb -y "lr: {x}"',
    "a parameter of another project": "mlflow run . -P a={x}",
    "a call for hypercorn": "hypercorn app:{x}",
    "code of IPython in one word": "ipython --c=x={x}",
    "another shell with options": "osh -lc ./show/{x}",
    "a shell of a container": "docker run --entrypoint bash i -lc ./show/{x}",
    "a shell on TPUs": 'accelerate tpu-config --command "./show {x}"',
    "words of a program that watches": "watchexec ./show {x}",
    "output that strace gives to a command": "strace -o {x} ./show a",
    "a command for a file of ImageMagick with a format": "convert png:{x} a.png",
    "an application of gunicorn": "./gunicorn {x}",
    "an application of flask": "./flask --app {x} routes",
    "a call for flask": "python3 -m flask --app a:{x} routes",
    "a remote of rclone": "rclone copy {x} d",
    "an address of socat as a whole": "socat -u OPEN:show {x}",
    "an environment of virtualenv": 'virtualenv "{x}"',
    "an environment of uv": 'uv venv "{x}"',
    "an environment of conda": 'conda create -p "{x}"',
    "an environment whose programs begin with its name": 'python3 -m venv --without-pip "{x}" && "{x}/bin/pip"',
    "words of a container that evaluates them": "singularity run i.sif --n {x}",
    "a setting of a container that evaluates it": "apptainer exec --env A={x} i.sif a",
    "hosts of horovodrun": "horovodrun -np 2 -H {x} python3 a.py",
    "words of pixi": "pixi run python a.py --n {x}",
    "a template's variable": "cookiecutter t --no-input a={x}",
    "an option of uwsgi": "uwsgi --ini {x}",
    "words of SkyPilot": "sky exec c python a.py --n {x}",
    "an application in a variable": 'FLASK_APP="{x}" ./show a',
    "a shell of mpirun in a variable": 'export OMPI_MCA_plm_rsh_agent="{x}"; ./show a',
    "a folder of compilers": 'CUDA_HOME="{x}" ./show a',
    "options of java for ant": 'ANT_OPTS="{x}" ./show a',
    "a message for mail": 'MAILPATH="f?{x}" ./show',
    "a program of make": 'MAKE="make {x}" R CMD INSTALL p',
}  # fmt: skip

EVIL = [
    "$(touch EVIL)", "`touch EVIL`", "'; touch EVIL; '", '"; touch EVIL; "', "\nEND\ntouch EVIL\n", "END",
    "a[$(touch EVIL)]", "/e; 1e touch EVIL\n#", "\\", "\\'", "touch EVIL", "__import__('os').system('touch EVIL')",
    "-cimport os; os.system('touch EVIL')#", "-Itouch EVIL #", "cimport os; os.system('touch EVIL')",
    "Itouch EVIL #", "e1e touch EVIL", 'eBEGIN{system("touch EVIL")}', "Stouch EVIL", "!touch EVIL", "+!touch EVIL",
    "eval=require('child_process').execSync('touch EVIL')", 'system("touch EVIL")', ";touch EVIL;",
    "use-compress-program=touch EVIL", "--use-compress-program=touch EVIL", "|touch EVIL", "a $(touch EVIL)",
    "subprocess:getoutput('touch EVIL')", "getoutput('touch EVIL')", ":sftp,ssh='touch EVIL':", "SYSTEM:touch EVIL",
    "a,-oProxyCommand touch EVIL",
]  # fmt: skip
values = st.lists(
    st.sampled_from(EVIL)
    | st.sampled_from("ab $`\"'\\\n\t;|&<>(){}[]*?#!~%=-.,:/\ré日")
    | st.characters(codec="utf-8"),
    max_size=6,
).map(lambda parts: "".join(parts).replace("\0", ""))


def built(command: str, value: str) -> str:
    entry = EntryPoint("main", command, {"x": Parameter("x")})
    project = Project(Path("/p"), Path("/p/MLproject"), None, {"main": entry})
    return build_command(project, entry, check_parameters(project, entry, {"x": value}), lambda *_: "")


def shown(command: str, folder: Path) -> list[str]:
    program = folder / "show"
    program.write_text(SHOW)
    program.chmod(0o755)
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, stdin=subprocess.DEVNULL)
    return done.stdout.decode().split("\0")[:-1]


@pytest.mark.parametrize("case", UNCHANGED)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=values)
def test_the_program_gets_the_value_unchanged(case, value, tmp_path):
    command, expected = UNCHANGED[case]
    if "here-document" in case and ("END" in value or re.search(r"[^\0-\x7f][\\$`]", value)):  # refused
        return
    line = built(command, value)
    assert shown(line, tmp_path) == [text.replace("V", value) for text in expected]
    assert not (tmp_path / "EVIL").exists()


@pytest.mark.parametrize("value", EVIL)
def test_a_command_may_end_with_a_backslash(value, tmp_path):
    # A block that goes on nowhere, without a line end in the file; bash itself may drop the backslash.
    assert shown(built('./show "{x}" \\', value), tmp_path)[0] == value
    assert not (tmp_path / "EVIL").exists()


def test_a_name_that_find_writes_into_a_script_is_not_let_in(tmp_path):
    # The folder's name, which another value gave, would stand in the script instead of {}.
    entry = EntryPoint(
        "main", "mkdir {a}; find . -exec sh -c './show {b}' ';'", {"a": Parameter("a"), "b": Parameter("b")}
    )
    project = Project(Path("/p"), Path("/p/MLproject"), None, {"main": entry})
    with pytest.raises(ProjectError, match="where find writes a file's name"):
        build_command(
            project, entry, check_parameters(project, entry, {"a": "';touch EVIL;'", "b": "{}"}), lambda *_: ""
        )


@pytest.mark.parametrize("case", GUARDED)
def test_an_evil_value_runs_nothing(case, tmp_path):
    refused = 0
    for value in EVIL:
        try:
            line = built(GUARDED[case], value)
        except ProjectError as error:
            refused += not is_plain(value) and "write {x} as a word of its own" in str(error)
        else:
            if "EVIL" in value:  # a value without it can make no such file: half of the time of this test
                shown(line, tmp_path)
    assert not (tmp_path / "EVIL").exists()
    assert refused


# Where a plain value that is no number may be code of another program: see tests/security/test_plain_values.py.
IN_CODE = (
    "sed", "sed behind another word", "sed that cannot be parsed", "sed with a suffix", "sed behind a long option",
    "code of sed in one word", "code of perl", "code of matlab", "a variable in code",
)  # fmt: skip


@pytest.mark.parametrize("case", [*GUARDED, *UNCHANGED])
def test_a_plain_value_outside_of_code_is_never_refused_and_the_command_is_mlflows(case):
    command = GUARDED.get(case) or UNCHANGED[case][0]
    for value in ("s3://b/c.csv", "1e-5", "END", "A=b", "-c") if case not in IN_CODE else ("1e-5",):
        if value == "END" and "\n{x}\n" in command:  # see the test below
            continue
        assert built(command, value) == command.format(x=value)


@pytest.mark.parametrize(
    "command",
    [
        "cat <<END\n{a}\n{b} {c}\nEND",
        "cat <<-'END'\n\t{a}{d}\n{b} {c}\nEND",
        "bash -c 'cat <<END\n{a}\n{b} {c}\nEND\n'",
    ],
)
def test_a_plain_value_ends_no_here_document(command, tmp_path):
    values = {"a": "EN" if "{d}" in command else "END", "b": "touch", "c": "EVIL", "d": "D"}
    entry = EntryPoint("main", command, {name: Parameter(name) for name in values})
    project = Project(Path("/p"), Path("/p/MLproject"), None, {"main": entry})
    with pytest.raises(ProjectError, match="is the word that ends a here-document"):
        build_command(project, entry, check_parameters(project, entry, values), lambda *_: "")
    assert build_command(project, entry, check_parameters(project, entry, {**values, "a": "E"}), lambda *_: "")


@pytest.mark.parametrize(
    "command",
    [
        "bash -c {x}", "python -c {x}", "eval {x}", "sh -c {x} name", "run {x}", "$RUN {x}",
        "python3 main.py steps=[{x}] $(echo {x})", "env A=1 python a.py --x={x}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", EVIL)
def test_without_quotes_around_it_the_command_is_mlflows(command, value):
    assert built(command, value) == command.format(x=shlex.quote(value))


@pytest.mark.parametrize(
    "command",
    ["# {x}\n./show {x}", "if true; then\n\t# a 'b {x} \"\n./show {x}; fi", "./show {x}\n# ./show {x} \\\n"],
)
@pytest.mark.parametrize("value", EVIL)
def test_a_line_that_is_a_comment_takes_what_stays_in_it(command, value, tmp_path):
    if "\n" in value:
        with pytest.raises(ProjectError, match="in a comment, which ends with its line"):
            built(command, value)
        return
    assert built(command, value) == command.format(x=shlex.quote(value))
    assert shown(built(command, value), tmp_path) == [value]
    assert not (tmp_path / "EVIL").exists()


def test_after_a_dollar_sign_in_quotes_only_a_plain_value_names_a_variable(tmp_path):
    assert shown(built('./show "${x}"', "$(touch EVIL) it's"), tmp_path) == ["$$(touch EVIL) it's"]
    assert built('./show "${x}"', "HOME") == './show "$HOME"'
    assert not (tmp_path / "EVIL").exists()


@pytest.mark.parametrize("case", GUARDED)
def test_a_default_is_the_authors_and_never_refused(case):
    command = GUARDED[case]
    for default in EVIL[::4]:
        entry = EntryPoint("main", command, {"x": Parameter("x", default=default)})
        project = Project(Path("/p"), Path("/p/MLproject"), None, {"main": entry})
        line = build_command(project, entry, check_parameters(project, entry, {}), lambda *_: "")
        if command.count("{x}") > 1:  # of which one may stand in a safe place
            continue
        try:
            assert line == built(command, default)
        except ProjectError:
            assert line == command.format(x=shlex.quote(default))


def test_a_default_that_opens_a_quote_gives_a_value_beside_it_no_room():
    parameters = {"a": Parameter("a", default="'"), "b": Parameter("b")}
    entry = EntryPoint("main", 'python -c "print({a})" {b}', parameters)
    project = Project(Path("/p"), Path("/p/MLproject"), None, {"main": entry})
    with pytest.raises(ProjectError, match="cannot be passed safely"):
        build_command(project, entry, check_parameters(project, entry, {"b": "$(touch EVIL)"}), lambda *_: "")


@pytest.mark.parametrize(
    ("command", "value"),
    [("cat <<END\n{x}\nEND", "Á$(touch EVIL)"), ("cat <<END\nÁ{x}\nEND", "`touch EVIL`")],
)
def test_a_backslash_in_a_here_document_is_no_part_of_a_letter_of_another_locale(command, value):
    with pytest.raises(ProjectError, match="where a sign of the shell follows a letter of more bytes than one"):
        built(command, value)
    assert built(command.replace("<<END", "<<'END'"), value) == command.replace("<<END", "<<'END'").format(x=value)
    assert built(command, "日本 1") == command.format(x="日本 1")


def test_a_host_of_mpirun_is_no_option_of_ssh():
    assert built("mpirun -H {x} python a.py", "a,b c") == "mpirun -H 'a,b c' python a.py"
    with pytest.raises(ProjectError, match="where it would be a setting or an option"):
        built("mpirun -H {x} python a.py", "a,-oProxyCommand touch EVIL")


def test_two_values_that_end_a_here_document_together_are_refused():
    entry = EntryPoint("main", "cat <<END\n{a}{b}\nEND\n", {"a": Parameter("a"), "b": Parameter("b")})
    project = Project(Path("/p"), Path("/p/MLproject"), None, {"main": entry})
    parameters = check_parameters(project, entry, {"a": "EN", "b": "D\ntouch EVIL"})
    with pytest.raises(ProjectError, match="where it would change the command"):
        build_command(project, entry, parameters, lambda *_: "")


@pytest.mark.parametrize(
    ("command", "filled"),
    [
        ("x {p}", "x @@1@@"),
        ('x "--in={p}"', 'x "--in="@@1@@""'),
        ("x '{p}'", "x ''@@1@@''"),
        ("bash -c 'x {p}'", None),
        ("cat <<END\n{p}\nEND\n", None),
    ],
)
def test_what_is_filled_in_later_stands_outside_of_quotes(command, filled):
    entry = EntryPoint("main", command, {"p": Parameter("p", "path")})
    project = Project(Path("/p"), Path("/p/MLproject"), None, {"main": entry})
    parameters = check_parameters(project, entry, {"p": "s3://b/c"})
    if filled:
        assert build_command(project, entry, parameters, lambda *_: FilledLater("@@1@@")) == filled
    else:
        with pytest.raises(ProjectError, match="where no path can be filled in later"):
            build_command(project, entry, parameters, lambda *_: FilledLater("@@1@@"))
