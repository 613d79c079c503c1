"""Whether this node is set up as AMD's guides for MI300X ask, check by check.

It reads and never changes: each finding has what was found, what is expected, why, the command that an
administrator may type, and where that is written. What cannot be read is a finding of its own, with what to
do about it; it is never taken for good.

The files, each importing only from those before it:

- ``findings``: a check, what was read for it, and the audit made of them. ``reading``: asking the kernel's
  files and amd-smi. ``catalogue``: every check with its reason and source.
- ``host``: what holds for processors, memory and limits. ``drivers``: drivers and ROCm against each other.
  ``gpus``: what holds for the GPUs.
- ``node``: the whole audit, and its digest for the rows of a trial.
"""

from sweeper.audit.findings import Audit, Check, Finding, Reading, Verdict
from sweeper.audit.node import audit_node, digest_for

__all__ = ["Audit", "Check", "Finding", "Reading", "Verdict", "audit_node", "digest_for"]
