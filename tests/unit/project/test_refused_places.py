"""Which sentence a person reads where a value is refused: the first thing that is wrong with its place."""

from __future__ import annotations

import pytest

from mlflow_projects.exceptions import ProjectError
from tests.unit.project.test_quoting import GUARDED, built

KEPT = "in a variable, or in a file, of a command that may read it as code"
REASONS = {  # all other cases: KEPT
    "after a backslash": [
        "after a backslash in quotes",
    ],
    "after a backslash or a dollar sign": [
        "after a backslash",
    ],
    "after a dollar sign": [
        "after a dollar sign",
    ],
    "behind '>&'": [
        "a redirection that is read twice",
    ],
    "beside braces that the shell makes words of": [
        "braces that become words",
    ],
    "between backquotes": [
        "escaped quotes in backquotes", "backquotes",
    ],
    "in a command that cannot be parsed": [
        "a here-document's end", "quotes without an end", "sed that cannot be parsed",
        "a here-document's end with a backslash in quotes", "a test whose time is taken",
        "a subscript whose time is taken", "a loop whose time is taken", "a loop behind a sign",
        "a test that cannot be parsed", "a file behind what looks like a number",
    ],
    "in a command that gives its input another name": [
        "a link to the input",
    ],
    "in a command that goes on in another line in the middle of a word": [
        "a sign behind a line that goes on", "a redirection over two lines", "arithmetic over two lines",
        "a subscript over two lines", "let over two lines", "a substitution over two lines",
        "a subscript over two lines in a substitution",
    ],
    "in a command that may be one of the shell's own": [
        "Python behind a launcher", "ssh behind a launcher", "a function that runs its arguments",
        "a launcher of shells", "the arguments behind nothing", "the arguments behind no argument",
        "a test behind nothing", "a function in a launcher's name", "a function in a variable",
    ],
    "in a command that reads '/proc/$$/cmdline', its own text": [
        "the whole command in a file",
    ],
    "in a command that reads 'BASH_COMMAND', its own text": [
        "the command itself",
    ],
    "in a command that reads 'BASH_EXECUTION_STRING', its own text": [
        "the whole command in a variable",
    ],
    "in a command with $'…', which not every shell reads": [
        "ANSI-C quotes", "quotes that only bash reads", "a word beside quotes that only bash reads",
        "such quotes in a script of sh",
    ],
    "in a command with 'alias'": [
        "an alias",
    ],
    "in a command with 'coproc'": [
        "a coprocess",
    ],
    "in a command with a here-document whose end stands behind a backslash": [
        "a here-document whose end is behind a backslash", "a here-document whose end is made of two lines",
    ],
    "in a command with control characters": [
        "a sign behind a carriage return", "a form feed behind a here-document's end",
    ],
    "in a command with functions that 'eval' makes": [
        "a function that eval makes",
    ],
    "in a command with the variable '_', which holds the last word": [
        "the last word",
    ],
    "in a command with words behind a redirection": [
        "a script behind a redirection in a list", "a shell behind a redirection and a sign",
        "code behind a redirection",
    ],
    "in a comment": [
        "a comment", "a comment behind a line that goes on", "a comment in a substitution",
        "a comment beside a here-document", "a sign behind a backslash",
    ],
    "in a here-document that cannot be read": [
        "a here-document in another shell's script", "a here-document that begins with a backslash",
        "a here-document before another command", "a here-document before a pipe",
    ],
    "in a here-document, beside what the shell replaces": [
        "a here-document beside backquotes",
    ],
    "in a command with a function that is called by other names": [
        "a function with a path", "a function for what is not found",
    ],
    "in the name of an option": [
        "an option that a value ends", "options of Python that a value ends", "an option of node that a value ends",
        "options of awk that a value ends", "options of sed that a value ends", "options of env that a value ends",
        "an option of java that a value ends",
    ],
    "in an arithmetic expression or a pattern": [
        "an arithmetic test",
    ],
    "in what another program reads as its script": [
        "Python with arguments that reads its code", "source", "input of ssh", "a here-document for ssh",
        "code of sed in one word", "files that split writes", "input behind a program of Python",
        "input of sed that runs it", "input of sed in one word", "input of sed behind an address",
        "input of sed whose first line runs", "a here-document for sed that runs it",
        "input of awk that runs it", "input of awk for a shell",
    ],
    "in words that a shell, or another program, reads once more": [
        "eval behind another word", "trap behind an option", "a test of a variable", "let", "words of eval",
        "text for a program that is not known", "ssh behind find", "printf behind another word",
        "printf with its option", "the format of printf", "a test behind another word", "wait",
        "a variable that printf sets", "a folder elsewhere", "a step of dvc", "a program of honcho",
        "a shell elsewhere by another name", "other machines of deepspeed",
        "words of a program that watches",
        "a test by a variable behind a sign",
        "text as a program behind a launcher",
        "a shell elsewhere behind a launcher",
        "a shell elsewhere behind a launcher and a wrapper",
        "an address of socat",
        "an address of socat as a whole",
        "an environment of virtualenv",
        "an environment of uv",
        "an environment of conda",
        "an environment whose programs begin with its name",
        "words of a container that evaluates them",
        "a setting of a container that evaluates it",
        "an argument of perl that runs it",
        "an argument of perl that becomes a pipe",
        "an argument of Python that runs it",
        "hosts of horovodrun",
        "words of pixi",
        "a template's variable",
        "an option of uwsgi",
        "words of SkyPilot",
    ],
    "in words that another program may run": [
        "code of Python", "code of Python after options", "code of Python in the option's word",
        "code of Python after options that only the shell knows", "code of node",
        "options of Python in one word", "sed", "awk", "a program that tar runs", "a command of flock",
        "an alias of git", "code of perl", "code of timeit", "code of IPython", "sed with a suffix",
        "awk with a variable", "a command of zip",
        "a shell behind a program of the project", "a shell among options", "a setting of PHP",
        "numbers of other shells", "code of matlab", "code of jq", "a command of tar that is cut",
        "a program of tar that is cut", "an action of tar that is cut", "a program of tar without a dash",
        "a program for tar's next volume", "a program of sort that is cut",
        "a line for env that is cut", "a pager of git", "a program of git that is cut",
        "a setting of git's clone", "a program as an address of git", "awk behind a long option",
        "awk behind options in one word", "jq behind a name", "sed behind a long option", "a debugger of perl",
        "fields of perl", "a module of node", "a setting of PHP in a long option", "a command of vim",
        "a command of gdb", "a name of m4", "code of dc", "code of groovy",
        "a variable of ansible", "a program for an error of java", "options of java in spark",
        "a call for gunicorn", "a value of a macro", "an alias that git keeps",
        "a name that becomes code of a notebook", "a parameter of another project", "a call for hypercorn",
        "code of IPython in one word", "a shell on TPUs",
        "a call for flask",
    ],
    "in words that become a command": [
        "a substitution in find", "a substitution that becomes a command", "a substitution behind a wrapper",
        "a substitution before env's program", "a substitution before a program's name",
    ],
    "inside of a program's code": [
        "a program that only the shell knows", "a path that only the shell knows", "a setting of make",
        "a variable of env for make", "a target of make", "a whole target of make", "SQL",
        "perl with a module", "timeit of another module",
        "a shell in a variable", "options of a starter in a substitution",
        "text for a module that is a program",
        "names of files for a loop of perl", "a shell of AWS", "another shell with options",
        "a shell of a container",
    ],
    "where the shell reads more than a word": [
        "arithmetic", "an arithmetic command", "a subscript", "a variable's default", "a variable's name",
    ],
}  # fmt: skip
TAKEN = [
    "a here-document without tabs", "an option of Python", "Python behind options with a value",
    "perl behind options with a value", "an option of sed", "an end of a here-document in the value",
    "a whole setting of env", "a command that ed takes for a file", "a command that vim takes for a file",
    "output that strace gives to a command", "a command for a file of ImageMagick with a format",
    "an application of gunicorn", "an application of flask", "a remote of rclone",
]  # fmt: skip
VALUE = "a 'b' \"c\" $d"
REASON_OF = {case: reason for reason, cases in REASONS.items() for case in cases}


@pytest.mark.parametrize("case", GUARDED)
def test_the_sentence_says_where_a_value_stands(case):
    if case in TAKEN:  # there, only other values are dangerous
        built(GUARDED[case], VALUE)
        return
    with pytest.raises(ProjectError) as refused:
        built(GUARDED[case], VALUE)
    assert f"as it stands {REASON_OF.get(case, KEPT)}; take values of" in str(refused.value)
