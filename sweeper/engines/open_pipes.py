"""Opens named pipes under the numbers that a program expects, and goes on as that program.

It runs inside a container, with the image's interpreter: a shell could do this for numbers below ten only.
Standard library, and of any Python 3 that an engine needs; nothing of the sweeper.

Arguments: how many words describe pipes; for each pipe its number, ``r`` or ``w``, and its path; the program
and its arguments.
"""

import os
import sys


def main(count: str, *words: str) -> None:
    """Open the pipes, each once its other end is opened, too, and execute the program."""
    described, command = words[: int(count)], words[int(count) :]
    for number, mode, path in zip(described[::3], described[1::3], described[2::3], strict=True):
        found = os.open(path, os.O_RDONLY if mode == "r" else os.O_WRONLY)
        if found != int(number):
            os.dup2(found, int(number))
            os.close(found)
        os.set_inheritable(int(number), True)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
