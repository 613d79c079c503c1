"""How the nodes of a study were set up against AMD's guides, in a line each: which differ, and in what.

A setting of the host moves numbers as a knob does, and stands in no legend. The column ``audit`` has a hash
of what was read on the node before each engine start, and the checks that differ; rows of before it existed,
simulated ones and those of an endpoint tell none, and then nothing is said.
"""

from __future__ import annotations

import pandas as pd

from analysis.markdown import escaped
from analysis.study import Study

_UNNAMED = "an unknown node"
# What a digest says, and how a sentence does. Source: audit/findings.py, Audit.digest.
_PHRASES = {"differs": "differs from AMD's guides in", "unreadable": "could not be read in"}
_COMMAND = "`python -m sweeper audit` lists what was found, why it matters and what changes it."


def section(study: Study) -> str:
    """Return the report's section on the settings of its nodes; nothing where no row tells of any."""
    line = told(study)
    return f"## Settings of the nodes\n\n{line} {_COMMAND}" if line else ""


def told(study: Study) -> str:
    """Return in one line how the nodes were set up, and whether alike; empty where no row tells of it."""
    nodes = digests(study)
    if not nodes:
        return ""
    every = {digest for found in nodes.values() for digest in found}
    if len(every) == 1:
        named = ", ".join(map(escaped, nodes))
        return f"{'All alike: ' if len(nodes) > 1 else ''}{named} {_state(next(iter(every)))}."
    parts = [
        f"{escaped(node)} {' and then '.join(map(_state_with_hash, found))}" for node, found in nodes.items()
    ]
    start = "**Not alike**" if len(nodes) > 1 else "**Changed during the study**"
    return f"{start}: {'; '.join(parts)}. Their numbers differ by that, too."


def between(first: Study, second: Study) -> str:
    """Return a comparison's section on the settings of both studies' nodes; nothing where one tells none."""
    sides = [digests(study) for study in (first, second)]
    if not all(sides):
        return ""
    ones, others = ({digest for found in side.values() for digest in found} for side in sides)
    if ones == others:
        line = f"Alike on both sides: {' and '.join(map(_state, sorted(ones)))}."
    else:
        told_of = [
            f"{which} ({', '.join(map(escaped, side))}) {' and '.join(map(_state_with_hash, sorted(found)))}"
            for which, side, found in zip(("first", "second"), sides, (ones, others), strict=True)
        ]
        line = f"**Not alike**: {'; '.join(told_of)}. What differs below differs by that, too."
    return f"## Settings of the nodes\n\n{line} {_COMMAND}"


def digests(study: Study) -> dict[str, list[str]]:
    """Return the audits of each node that tells one, in the order in which they were made."""
    frame = study.frame
    if "audit" not in frame.columns:
        return {}
    rows = frame[frame["audit"].notna()].sort_values("ended_at", kind="stable")
    found: dict[str, list[str]] = {}
    for node, digest in zip(rows["node"], rows["audit"], strict=True):
        seen = found.setdefault(_UNNAMED if pd.isna(node) else str(node), [])
        if digest not in seen:
            seen.append(str(digest))
    return dict(sorted(found.items()))


def _state(digest: str) -> str:
    """Say what a digest names, without its hash: ``is as AMD's guides ask``, or what differs."""
    _, _, words = digest.partition(" ")
    if words == "good":
        return "is set up as AMD's guides ask, in all that was read"
    told_of = dict(part.partition(": ")[::2] for part in words.split("; "))
    phrases = (f"{says} {escaped(told_of[word])}" for word, says in _PHRASES.items() if word in told_of)
    return " and ".join(phrases)


def _state_with_hash(digest: str) -> str:
    # Two nodes may differ in the same checks, by other values.
    return f"{_state(digest)} ({digest.partition(' ')[0]})"
