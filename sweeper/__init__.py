"""Parameter sweeps for LLM serving on AMD Instinct MI300X: compose, place, measure, answer."""

__version__ = "0.2.0"
