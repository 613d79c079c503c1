"""What lies between a client and the scheduler of an online server.

A request is sent, parsed, tokenized and handed over; a token is made text and sent back. V1 reads requests in
a thread of its own, as they are handed over: prompts are tokenized one after the other. So answers that end
together are followed by requests that come together: the scheduler sees them as one queue, and not each as
soon as another one ends.

V0's engine reads between steps, until there is nothing to read, and each request takes it longer than the
server takes to send the next one of a burst; that server's event loop does the work of all in turns, and is
through with all at once. A burst meets V0's scheduler as one.

Source: vLLM 0.6.2 to 0.8.5, engine/multiprocessing/engine.py (run_engine_loop, handle_new_input). What shows
it: 200 requests at once, served by 0.6.4, got their first tokens after 2.11 (median) to 2.13 s (99th
percentile; AMD's serving guide).

Left out: that a busy host takes longer, several API servers, and time on a network.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class FrontEnd:
    """Times of the API server.

    Attributes:
        entry_s: From the client's sending to the scheduler's waiting requests, for each request alike.
        token_s: On top for each token of the prompt, which holds up the requests behind it, and in V0 those
            that came together with it.
        return_s: From the end of a step to the client's sight of its tokens, and to its next request.
    """

    entry_s: float
    token_s: float
    return_s: float


SERVED = FrontEnd(entry_s=0.005, token_s=2e-6, return_s=0.005)
"""Of one API server on an idle host. Assumed: some milliseconds each way, and half a million tokens a second,
as fast tokenizers reach on one core. Nothing was fitted to tell them: 73 first tokens of 14 sources (MI300X,
MI355X; V0 and V1) are 33 instead of 46 % off with them, times per token and throughput as before; twice as
many milliseconds change that by 2 points."""
