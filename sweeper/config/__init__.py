"""The configuration: its schema, its composition by Hydra, and its way into our own objects.

``schema`` declares every key with its type, ``composition`` turns files and overrides into checked plain data
(``own_files`` explains what Hydra would misread), ``space`` reads what may vary, ``settings`` makes our own
objects of it, ``listing`` reads what experiments there are, ``unused`` refuses what would do nothing, by
``effect_table``, ``release_source`` says whether the user named the release. YAML holds values; types and
checks are here. No other package knows that Hydra exists.
"""

from sweeper.config.composition import TODAY, about, bases, compose_run, conf_folder, groups
from sweeper.config.listing import Listed, experiments
from sweeper.config.release_source import Stated, release_stated_by
from sweeper.config.settings import Settings, settings
from sweeper.config.space import parse_domain

__all__ = [
    "TODAY",
    "Listed",
    "Settings",
    "Stated",
    "about",
    "bases",
    "compose_run",
    "conf_folder",
    "experiments",
    "groups",
    "parse_domain",
    "release_stated_by",
    "settings",
]
