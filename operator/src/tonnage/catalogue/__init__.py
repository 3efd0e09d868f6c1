"""Which models are known by name: the published config.json of each, cut to its shapes, with its source."""

from tonnage.catalogue.entries import Entry, entries, find, names, nearest

__all__ = ["Entry", "entries", "find", "names", "nearest"]
