"""The first thing in a sandbox, as the text of `python -c`: sets limits, then becomes the program.

Arguments: the file descriptor of the program's source, then limits as NAME=soft:hard. Only the standard
library, and little of it: each import is paid for at every run.
"""

import os
import resource
import sys


def limit(name: str, soft: int, hard: int) -> None:
    """Set a limit of this process and its children, or what is already allowed if that is less."""
    which = getattr(resource, name)
    allowed = resource.getrlimit(which)[1]
    if allowed != resource.RLIM_INFINITY:
        soft, hard = min(soft, allowed), min(hard, allowed)
    resource.setrlimit(which, (soft, hard))


def become_the_program() -> None:
    """Run the source in a fresh `__main__`."""
    with os.fdopen(int(sys.argv[1]), encoding="utf-8") as file:
        source = file.read()
    for setting in sys.argv[2:]:
        name, values = setting.split("=")
        soft, hard = values.split(":")
        limit(name, int(soft), int(hard))
    sys.argv[:] = ["program.py"]
    main = type(sys)("__main__")
    sys.modules["__main__"] = main
    exec(compile(source, "program.py", "exec"), vars(main))  # noqa: S102  # what the sandbox is for


if __name__ == "__main__":
    become_the_program()
