"""An engine of another package: a model in which a token takes a time that falls with the knob ``batch``.

It brings its own client, since nothing listens.
"""

import time
from dataclasses import dataclass, field

import numpy as np

from sweeper.errors import EngineError, FailureClass
from sweeper.kinds import EngineKind
from sweeper.metrics import RequestRecords, summarize
from sweeper.records import Measurement, Provenance
from sweeper.workload.requests import make_workload

KNOBS = {"batch"}

TOY = EngineKind(
    name="toy",
    title="Toy",
    engine="toy_engine:ToyEngine",
    own_client="toy_engine:ToyClient",
    words="the toy engine",
    check="toy_engine:check",
    flags="toy_engine:KNOBS",
    is_modelled=True,
    has_devices=False,
)


def check(assignment, *, allow_unknown=False):
    """Return a sentence for each mistake."""
    return [f"knob '{knob}': Toy has {sorted(KNOBS)} only." for knob in assignment if knob not in KNOBS]


@dataclass
class ToyServer:
    """What the engine started; nothing that a process would have to end."""

    token_s: float
    effective: dict
    base_url: str = ""
    api_key: str = ""
    provenance: Provenance = Provenance.SIMULATED
    start_s: float = 1.0
    command: tuple = ()
    versions: dict = field(default_factory=lambda: {"toy": "1.0"})
    log_path: str | None = None
    is_stopped: bool = False

    def sanity(self):
        """Return no answer: the model has none."""

    def check_alive(self):
        """Refuse to be loaded after the end."""
        if self.is_stopped:
            raise EngineError("toy: was stopped", failure=FailureClass.CRASH)

    def prove_ours(self):
        """Nothing listens, so nothing is to be proven."""

    def pids(self):
        """Return none: there is no process."""

    def counters(self):
        """Return no counters."""
        return {}

    def stop(self):
        """Stop, and return the seconds that it took."""
        self.is_stopped = True
        return 0.0


def _raise_if(cancelled):
    if cancelled():
        raise EngineError("stopped on request", failure=FailureClass.INTERRUPTED)


class ToyEngine:
    """Starts the server of a trial."""

    def start(self, spec, placement, *, restart, cancelled):
        """Return the server of a trial's assignment."""
        _raise_if(cancelled)
        batch = int(spec.assignment.get("batch", 1))
        return ToyServer(token_s=0.01 / batch, effective={"batch": batch})


class ToyClient:
    """Loads the server with the requests of a load point."""

    def __init__(self, spec, placement):
        pass

    def measure(self, server, point, *, restart, repeat, cancelled):
        """Return what the load gives, worked out."""
        _raise_if(cancelled)
        started_at, sent = time.time(), make_workload(point, seed=point.client_seed)
        first_s = sent.arrival_s + server.token_s
        metrics = summarize(
            RequestRecords(
                arrival_s=sent.arrival_s,
                first_token_s=first_s,
                last_token_s=first_s + server.token_s * (sent.output_tokens - 1),
                input_tokens=sent.input_tokens,
                output_tokens=sent.output_tokens,
                inter_token_s=np.full(int((sent.output_tokens - 1).sum()), server.token_s),
            )
        )
        return Measurement(
            load_point=point,
            restart=restart,
            repeat=repeat,
            metrics=metrics,
            telemetry={},
            measured_s=metrics["duration_s"],
            client_overhead_s=0.0,
            started_at=started_at,
            ended_at=time.time(),
        )

    def warm_up(self, server, point, *, prompts, cancelled):
        """Return the seconds that a warm-up took."""
        return 0.0

    def close(self):
        """Nothing is open."""
