"""``python -m sweeper completion``: what a shell needs to complete commands, experiments and groups.

The words are written into the script, so that the shell answers at once and starts no Python. Written anew
after an update; a folder of experiments of one's own is completed where the script was made with it.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.cli.arguments import ConsoleCommand
from sweeper.cli.exit_codes import OK

if TYPE_CHECKING:
    from rich.console import Console

_BASH = """\
# bash: source <(sweeper completion bash), or put this into ~/.local/share/bash-completion/completions/sweeper
_sweeper() {{
    local typed="${{COMP_LINE:0:COMP_POINT}}"
    local current="${{typed##* }}"
    COMPREPLY=($(compgen -W "{words}" -- "$current"))
    # What stands before an equals sign is a word of its own for readline.
    case "$current$COMP_WORDBREAKS" in
        *=*=*) COMPREPLY=("${{COMPREPLY[@]#"${{current%"${{current##*=}}"}}"}}") ;;
    esac
}}
complete -o nospace -o default -F _sweeper sweeper
"""

_ZSH = """\
#compdef sweeper
# zsh: put this as _sweeper into a folder of $fpath, or source <(sweeper completion zsh) after compinit
_sweeper() {{
    compadd -S '' -- {words}
    _files
}}
compdef _sweeper sweeper
"""

_FISH = """\
# fish: sweeper completion fish > ~/.config/fish/completions/sweeper.fish
complete -c sweeper -a "{words}"
"""

SHELLS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
"""Shells to the script of each; ``words`` are put in."""


class PrintCompletion(ConsoleCommand):
    """Print a script of completions.

    Args:
        commands: Returns the names of all commands, this one among them.
    """

    name = "completion"
    summary = "print what bash, zsh or fish need to complete commands and experiments"
    description = (
        "Print a script that completes commands, experiments and groups of the command sweeper in a shell. "
        "Its first lines say where it goes."
    )

    def __init__(self, commands: Callable[[], Sequence[str]]) -> None:
        self._commands = commands

    def declare(self, parser: ArgumentParser) -> None:
        """Declare the shell, and the folder of the user's own experiments."""
        parser.add_argument("shell", choices=sorted(SHELLS))
        parser.add_argument(
            "--config-dir", type=Path, help="folder with experiments of your own, completed too"
        )

    def run(self, options: Namespace, console: Console) -> int:
        """Print the script."""
        from sweeper import config

        words = words_of(self._commands(), config.groups(options.config_dir))
        script = SHELLS[options.shell].format(words=" ".join(words))
        console.print(script, markup=False, soft_wrap=True, highlight=False, end="")
        return OK


def words_of(commands: Sequence[str], groups: dict[str, tuple[str, ...]]) -> list[str]:
    """Return the words that can be completed: commands, ``+experiment=NAME`` and ``group=NAME``."""
    added = ("experiment", "overlay")
    chosen = [
        f"{'+' if group in added else ''}{group}={name}"
        for group, names in groups.items()
        if group not in _NOT_TYPED
        for name in names
    ]
    return [*commands, *sorted(chosen), "plan=true", "--config-dir", "--help"]


_NOT_TYPED = ("setting", "today")
"""Groups that other files name, never a command line."""
