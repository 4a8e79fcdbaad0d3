"""Replaces Ray's script of this name, which loads Ray before it starts a worker and so costs each half a second.

    python setup_worker.py WORKER ARGUMENT... --serialized-runtime-env-context=JSON --language=PYTHON

The context holds the worker's environment variables and the command that replaces Python. Anything else that Ray can
put there (containers, other languages, variables in variables) is left to Ray's script, which lies beside WORKER.
"""

import json
import os
import shlex
import sys

_CONTEXT = "--serialized-runtime-env-context="
_PYTHON = "--language=PYTHON"


def main() -> None:
    given = [each for each in sys.argv[1:] if each.startswith(_CONTEXT)]
    context = json.loads(given[0].removeprefix(_CONTEXT)) if given else {}
    variables, executable = context.pop("env_vars", {}), context.pop("py_executable", "")
    if not executable or _PYTHON not in sys.argv or any(context.values()) or any("$" in v for v in variables.values()):
        ray_script = os.path.join(os.path.dirname(sys.argv[1]), os.path.basename(__file__))
        os.execv(sys.executable, [sys.executable, ray_script, *sys.argv[1:]])
    os.environ.update(variables)
    command = shlex.split(executable)
    os.execvp(command[0], command + [each for each in sys.argv[1:] if each not in (*given, _PYTHON)])


main()
