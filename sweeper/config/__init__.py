"""The configuration: its schema, its composition by Hydra, and its way into our own objects.

``schema`` declares every key with its type, ``composition`` turns files and overrides into checked plain
data, ``domains`` reads what may vary, ``settings`` makes our own objects of it. YAML holds values; types
and checks stand here. Nothing below this package knows that Hydra exists.
"""

from sweeper.config.composition import compose_run, conf_folder, groups
from sweeper.config.domains import parse_domain
from sweeper.config.settings import Settings, settings

__all__ = ["Settings", "compose_run", "conf_folder", "groups", "parse_domain", "settings"]
