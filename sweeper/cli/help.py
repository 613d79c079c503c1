"""Help on what was typed so far: the experiment that is chosen, and what can be set besides it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

HELP_WORDS = ("-h", "--help")


def help_on(arguments: Sequence[str]) -> str | None:
    """Return the question, source and command of the chosen experiment, with the next steps.

    Args:
        arguments: The command line.

    Returns:
        The text; None where no experiment is chosen, which the general help answers.

    Raises:
        ConfigError: There is no such experiment, or a word cannot be read.
    """
    from sweeper import config
    from sweeper.cli.sweep import read_options

    rest = [text for text in arguments if text not in HELP_WORDS]
    options, overrides = read_options(rest, ())
    chosen = [text.partition("=")[2] for text in overrides if text.lstrip("+").startswith("experiment=")]
    if not chosen:
        return None
    config.compose_run(overrides, config_dir=options.config_dir)
    name = chosen[-1]
    command = f"python -m sweeper {shlex.join(rest)}"
    lines = [
        f"usage: {command} [key=value ...]",
        "",
        config.about(name, options.config_dir),
        "",
    ]
    for words, meaning in (
        ("plan=true", "what would run, how long, on which devices; starts nothing"),
        ("--cfg job", "every key of the configuration with its value"),
        ("space.knobs.max_num_seqs=64,256", "vary a knob"),
        ("knobs.max_model_len=8192", "give all settings a knob"),
    ):
        lines += [f"  {command} {words}", f"      {meaning}"]
    return "\n".join([*lines, "", "All commands, groups and options: python -m sweeper --help"])
