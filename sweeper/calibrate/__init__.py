"""Fits the parameters of the model to numbers that were published or measured.

``figures`` is what parameters are held against and what the model says of it; ``fitting`` moves parameters
until both agree; ``judging`` says how far off they then are. ``article`` and ``studies`` are the two places
where such numbers come from.
"""
