"""A model of an MI300X node that serves with vLLM: what a step costs, and which steps there are.

Three layers, each usable alone. ``device``: what the hardware can do, from its data sheet. ``costs``: how
long one forward pass and the host's work around it take, a roofline with fitted efficiencies. ``scheduler``:
which requests enter which step, as vLLM's V0 or V1 scheduler decides it.

What comes out is a number of a model, never a measurement; ``calibration.NamedCalibration`` says how far
off it is.
"""
