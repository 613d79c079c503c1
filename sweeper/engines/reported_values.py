"""Reads values as programs print them: JSON, Python's literals and reprs, enumerations, named objects.

An engine writes its configuration for people, in one line of ``name=value`` pairs whose values are whatever
Python prints of them. What is read here keeps its structure, so that it can be compared by its parts; what
has none that could be read (a function, an object by its address) stays `Unreadable`, with its text. A line
that ends in the middle, as a logger or a terminal may cut it, yields what is complete before its end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Enumerated:
    """A member of an enumeration, ``<CUDAGraphMode.FULL: 2>``; ``value`` is None where it is not reported."""

    name: str
    value: object = None


@dataclass(frozen=True, kw_only=True)
class Named:
    """An object of a class, ``PassConfig(enable_fusion=True)``, with its fields."""

    type_name: str
    fields: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A value in a form that says nothing to a reader, such as ``<function f at 0x7f>``."""

    text: str


def parse(text: str) -> object:
    """Read one value: None, a bool, number, text, list, dict, or one of this module's classes."""
    reader = _Reader(text.strip())
    try:
        return reader.value(ends="", may_end=True)
    except (_EndOfTextError, _NotUnderstoodError, RecursionError):
        return Unreadable(text=text)


def parse_pairs(text: str) -> dict[str, object]:
    """Read ``name=value, name=value``, up to its end or to where it stops being that.

    A bracket that closes what was opened before the text ends it, as in ``Namespace(host=None)``.
    """
    return _Reader(text).pairs(may_end=True)


def is_cut_off(text: str) -> bool:
    """Whether the pairs of a text end in the middle of a value, with a bracket or a quote still open."""
    reader = _Reader(text)
    reader.pairs(may_end=True)
    return reader.is_cut_off


_NAME = re.compile(r"[A-Za-z_][\w.]*")
_PAIR = re.compile(r"\s*([A-Za-z_]\w*)\s*=\s*")
_MEMBER = re.compile(r"<([A-Za-z_][\w.]*)\.(\w+)(?::\s*)?")
_MEMBER_NAME = re.compile(r"[A-Z]\w*\.([A-Z][A-Z0-9_]*)")
_QUOTED = re.compile(r"[bBrRuUfF]{0,2}(\"\"\"|'''|\"|')")
_NUMBER = re.compile(r"[+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_WORDS: Mapping[str, object] = {
    **{"None": None, "null": None, "NoneType": None, "True": True, "true": True, "False": False},
    **{"false": False, "inf": float("inf"), "Infinity": float("inf"), "-inf": float("-inf")},
    **{"-Infinity": float("-inf"), "nan": float("nan"), "NaN": float("nan")},
}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0"}
_CLOSING = {"(": ")", "[": "]", "{": "}", "<": ">"}


class _EndOfTextError(Exception):
    """The text ended in the middle of a value."""


class _NotUnderstoodError(Exception):
    """The text is no value here."""


class _Reader:
    """Reads one text from left to right.

    Attributes:
        is_cut_off: The text ended in the middle of something.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self.is_cut_off = False

    @property
    def is_at_end(self) -> bool:
        return self._at >= len(self._text)

    def skip_blanks(self) -> None:
        while not self.is_at_end and self._text[self._at].isspace():
            self._at += 1

    def pairs(self, *, may_end: bool) -> dict[str, object]:
        """Read pairs up to the first that is none; ``may_end``: the text may end after any of them."""
        found: dict[str, object] = {}
        while match := _PAIR.match(self._text, self._at):
            self._at = match.end()
            try:
                found[match[1]] = self.value(ends="),", may_end=may_end, is_pair=True)
            except (_EndOfTextError, _NotUnderstoodError, RecursionError):
                self.is_cut_off = True
                break
            if not self._take(","):
                break
        return found

    def value(self, *, ends: str, may_end: bool = False, is_pair: bool = False) -> object:
        """Read a value.

        Args:
            ends: The characters that may end it.
            may_end: The end of the text may, too; where it may not, a word there is perhaps half a word.
            is_pair: It belongs to a name: it may be empty, and a comma ends it before the next name only.
        """
        self.skip_blanks()
        start = self._at
        value = _BARE if self.is_at_end else self._structured()
        if value is not _BARE and self._is_followed_by(ends):
            return value
        # Something like 'a' 'b', 1.5GB, 2024-01-01 or /a/b(c): no structure, but text all the same.
        self._at = start
        value = self._bare(ends, is_pair=is_pair)
        if self.is_at_end and not may_end:
            raise _EndOfTextError
        return value

    def _structured(self) -> object:
        here = self._text[self._at]
        if here in "{[(":
            return self._container(here)
        if here == "<":
            return self._pointed()
        if _QUOTED.match(self._text, self._at):
            return self._quoted()
        name = _NAME.match(self._text, self._at)
        if name and self._text[name.end() : name.end() + 1] == "(":
            self._at = name.end() + 1
            return self._call(name[0])
        return _BARE

    def _is_followed_by(self, ends: str) -> bool:
        self.skip_blanks()
        return self.is_at_end or self._text[self._at] in ends

    def _take(self, character: str) -> bool:
        self.skip_blanks()
        if not self.is_at_end and self._text[self._at] == character:
            self._at += 1
            return True
        return False

    def _container(self, opening: str) -> object:
        self._at += 1
        closing = _CLOSING[opening]
        items: list[object] = []
        entries: dict[str, object] = {}
        is_mapping = False
        while not self._take(closing):
            if self.is_at_end:
                return self._cut_off(entries, is_mapping)
            try:
                item = self.value(ends=f"{closing},:" if opening == "{" else f"{closing},")
                if opening == "{" and self._take(":"):
                    is_mapping = True
                    entries[_key(item)] = self.value(ends="},")
                else:
                    items.append(item)
            except _EndOfTextError:
                return self._cut_off(entries, is_mapping)
            if not self._take(",") and not self._is_followed_by(closing):
                raise _NotUnderstoodError
        if opening == "{" and (is_mapping or not items):
            return entries
        # A tuple of one is a tuple; in a repr nothing else is written in round brackets.
        return items

    def _cut_off(self, entries: dict[str, object], is_mapping: bool) -> object:
        self._at = len(self._text)
        self.is_cut_off = True
        if is_mapping:
            return entries
        raise _EndOfTextError

    def _call(self, type_name: str) -> object:
        start = self._at
        fields = self.pairs(may_end=False)
        if self.is_cut_off:
            self._at = len(self._text)
            return Named(type_name=type_name, fields=fields)
        if self._take(")"):
            return Named(type_name=type_name, fields=fields)
        if fields:
            raise _NotUnderstoodError
        # Without names: what is wrapped, as in PosixPath('/data') or mappingproxy({...}).
        items = []
        while not self._take(")"):
            if self.is_at_end:
                raise _EndOfTextError
            items.append(self.value(ends="),"))
            if not self._take(",") and not self._is_followed_by(")"):
                raise _NotUnderstoodError
        if len(items) == 1:
            return items[0]
        return Unreadable(text=f"{type_name}({self._text[start : self._at]}")

    def _pointed(self) -> object:
        member = _MEMBER.match(self._text, self._at)
        start = self._at
        if member:
            self._at = member.end()
            if self._take(">"):
                return Enumerated(name=member[2])
            if member[0].rstrip().endswith(":"):
                value = self.value(ends=">")
                if self._take(">"):
                    return Enumerated(name=member[2], value=value)
        self._at = start
        depth = 0
        while not self.is_at_end:
            depth += {"<": 1, ">": -1}.get(self._text[self._at], 0)
            self._at += 1
            if depth == 0:
                return Unreadable(text=self._text[start : self._at])
        raise _EndOfTextError

    def _quoted(self) -> str:
        opening = _QUOTED.match(self._text, self._at)
        assert opening is not None
        quote = opening[1]
        found: list[str] = []
        at = opening.end()
        while at < len(self._text):
            if self._text.startswith(quote, at):
                self._at = at + len(quote)
                return "".join(found)
            if self._text[at] == "\\" and at + 1 < len(self._text):
                escaped = self._text[at + 1]
                found.append(_ESCAPES.get(escaped, escaped if escaped in "\\\"'/" else f"\\{escaped}"))
                at += 2
            else:
                found.append(self._text[at])
                at += 1
        self._at = at
        raise _EndOfTextError

    def _bare(self, ends: str, *, is_pair: bool) -> object:
        """Read unquoted text up to what ends it; in a list of pairs a comma ends it before the next name."""
        start, depth = self._at, 0
        while not self.is_at_end:
            here = self._text[self._at]
            if depth == 0 and here in ends and (not is_pair or here != "," or self._begins_a_pair()):
                break
            depth += (here in "([{") - (here in ")]}" and depth > 0)
            self._at += 1
        text = self._text[start : self._at].strip()
        if not text and not is_pair:
            raise _NotUnderstoodError
        return _bare(text)

    def _begins_a_pair(self) -> bool:
        return self._at + 1 >= len(self._text) or bool(_PAIR.match(self._text, self._at + 1))


_BARE = object()


def _key(item: object) -> str:
    if isinstance(item, Enumerated):
        return item.name
    return item if isinstance(item, str) else str(item)


def _bare(text: str) -> object:
    """What a word without quotes means; a type such as torch.bfloat16 is its name."""
    if text in _WORDS:
        return _WORDS[text]
    if _NUMBER.fullmatch(text):
        number = text.replace("_", "")
        return int(number) if re.fullmatch(r"[+-]?\d+", number) else float(number)
    member = _MEMBER_NAME.fullmatch(text)
    if member:
        return Enumerated(name=member[1])
    return Unreadable(text=text) if text.endswith("...") else text.removeprefix("torch.")
