"""What a study was run on and with, by the words in which reports tell it and the column that holds it."""

from __future__ import annotations

FACTS = {
    "Platform": "platform",
    "Provenance": "provenance",
    "Node": "node",
    "Devices": "device_name",
    "Partition mode": "partition_mode",
    "Memory mode": "memory_mode",
    "Engine": "engine",
    "Image": "image",
    "Image digest": "image_digest",
    "Model": "model",
    "Model revision": "model_revision",
    "Weights": "model_dtype",
    "Random weights": "model_is_dummy",
    "Dataset": "dataset",
    "Prompts per load point": "num_prompts",
}
"""Facts that two studies are compared by."""

FACTS_OF_ONE = {
    words: column
    for words, column in FACTS.items()
    if column not in ("provenance", "device_name", "model_is_dummy")
}
"""Those in the table of a study's own report."""
