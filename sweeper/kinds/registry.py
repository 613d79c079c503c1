"""One list of what is built in and what other packages add by an entry point."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from sweeper.errors import ConfigError, nearest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


class Kind(Protocol):
    """What every declaration has."""

    @property
    def name(self) -> str:
        """Its name in the configuration and in the rows."""
        ...


K = TypeVar("K", bound=Kind)


class Registry(Generic[K]):
    """The declarations of one sort by name, in the order in which they are listed.

    What is built in is found without a look at the installed packages. A plug-in is imported when its name
    is first asked for.
    """

    def __init__(
        self, key: str, built_in: Sequence[K], *, declared_by: type[K], group: str | None = None
    ) -> None:
        """List what is built in.

        Args:
            key: Key of the configuration that chooses one, for messages.
            built_in: The declarations of this package.
            declared_by: Class of the declarations; a plug-in has to name an instance of it.
            group: Entry points that other packages may declare; None where they cannot.
        """
        self._key = key
        self._built_in = {kind.name: kind for kind in built_in}
        self._declared_by = declared_by
        self._group = group
        self._loaded: dict[str, K] = {}

    def __getitem__(self, name: str) -> K:
        """Return a declaration.

        Raises:
            ConfigError: There is none of this name, or its plug-in is broken.
        """
        found = self.get(name)
        if found is None:
            raise ConfigError(
                f"{self._key}: is '{name}'; expected one of {', '.join(self)}."
                f"{nearest(name, self)} Correct it, or install the package that declares it."
            )
        return found

    def get(self, name: str) -> K | None:
        """Return a declaration, or None where there is none of this name.

        Raises:
            ConfigError: Its plug-in is broken.
        """
        if name in self._built_in:
            return self._built_in[name]
        if name not in self._loaded:
            if name not in self._plug_ins:
                return None
            self._loaded[name] = self._load(self._plug_ins[name])
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._built_in or name in self._plug_ins

    def __iter__(self) -> Iterator[str]:
        """Go through all names, those of plug-ins last; none of them is imported for it."""
        return iter((*self._built_in, *self._plug_ins))

    def values(self) -> tuple[K, ...]:
        """Return all declarations; plug-ins are imported."""
        return tuple(self[name] for name in self)

    @cached_property
    def _plug_ins(self) -> dict[str, EntryPoint]:
        found: dict[str, EntryPoint] = {}
        if self._group is None:
            return found
        from importlib.metadata import entry_points

        # The same distribution may be found twice on the path; its entry points are then equal.
        for point in dict.fromkeys(entry_points(group=self._group)):
            if point.name in self._built_in or point.name in found:
                owner = _of(found[point.name]) if point.name in found else "the sweeper itself"
                raise ConfigError(
                    f"{_of(point)}: declares the name '{point.name}', which {owner} has already; expected "
                    f"each {self._key} once. Uninstall one of them, or rename it."
                )
            found[point.name] = point
        return found

    def _load(self, point: EntryPoint) -> K:
        try:
            kind: object = point.load()
        # Whatever a foreign module raises while it is imported, it is that package's mistake.
        except Exception as exc:
            raise ConfigError(
                f"{_of(point)}: cannot be imported ({type(exc).__name__}: {exc}); expected a "
                f"{self._declared_by.__name__} at {point.value}. Correct or uninstall that package."
            ) from exc
        if not isinstance(kind, self._declared_by):
            raise self._not_declared(point, f"of type {type(kind).__name__}")
        if kind.name != point.name:
            raise self._not_declared(point, f"named '{kind.name}'")
        return kind

    def _not_declared(self, point: EntryPoint, got: str) -> ConfigError:
        return ConfigError(
            f"{_of(point)}: {point.value} is {got}; expected a {self._declared_by.__name__} named "
            f"'{point.name}'. Correct or uninstall that package."
        )


def opened(place: str) -> Any:
    """Import what a declaration names, such as ``sweeper.engines.tgi:TgiEngine``.

    Raises:
        ConfigError: There is no such module, or it has nothing of this name.
    """
    module, _, name = place.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as exc:
        raise ConfigError(
            f"{place}: cannot be imported ({exc}); expected what a declaration names as module:name. "
            "Correct the declaration, or install what it needs."
        ) from exc


def _of(point: EntryPoint) -> str:
    distribution = "an unnamed distribution" if point.dist is None else point.dist.name
    return f"entry point '{point.name}' in group {point.group} of {distribution}"
