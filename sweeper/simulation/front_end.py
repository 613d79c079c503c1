"""What lies between a client and the scheduler of an online server.

A request is sent, parsed, tokenized and handed over; a token is made text and sent back. Prompts are
tokenized one after the other. So answers that end together are followed by requests that come together: the
scheduler sees them as one queue, and not each as soon as another one ends.

Left out: that a busy host takes longer, several API servers, and time on a network.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class FrontEnd:
    """Times of the API server.

    Attributes:
        entry_s: From the client's sending to the scheduler's waiting requests, for each request alike.
        token_s: On top for each token of the prompt, which holds up the requests behind it.
        return_s: From the end of a step to the client's sight of its tokens, and to its next request.
    """

    entry_s: float
    token_s: float
    return_s: float

    def handed_s(self, *, sent_s: float, free_s: float, tokens: int) -> float:
        """Return when the scheduler sees a request, in seconds.

        Args:
            sent_s: When the client sent it.
            free_s: When the tokenizer is done with the requests before it.
            tokens: Of its prompt.
        """
        return max(sent_s, free_s) + self.entry_s + self.token_s * tokens

    def free_s(self, *, handed_s: float) -> float:
        """Return when the tokenizer is done with a request that is handed over at a time."""
        return handed_s - self.entry_s


SERVED = FrontEnd(entry_s=0.005, token_s=2e-6, return_s=0.005)
"""Of one API server on an idle host. Assumed: some milliseconds each way, and half a million tokens a second,
as fast tokenizers reach on one core. Nothing was fitted to tell them: 73 first tokens of 14 sources (MI300X,
MI355X; V0 and V1) are 33 instead of 46 % off with them, times per token and throughput as before; twice as
many milliseconds change that by 2 points."""
