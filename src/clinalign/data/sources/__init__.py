"""Data sources by name. A new one is a file and a line here, or an entry point of the group ``clinalign.sources``."""

from __future__ import annotations

from collections.abc import Callable

from clinalign.core.registry import Registry
from clinalign.data.sources.base import Source, SourceOptions
from clinalign.data.sources.folder import Folder
from clinalign.data.sources.ham10000 import Ham10000
from clinalign.data.sources.nih_cxr14 import NihCxr14
from clinalign.data.sources.phantom import phantom_cxr, phantom_skin

SOURCES: Registry[Callable[[SourceOptions], Source]] = Registry("data source", "clinalign.sources")
SOURCES.add("phantom-skin", phantom_skin)
SOURCES.add("phantom-cxr", phantom_cxr)
SOURCES.add("ham10000", Ham10000)
SOURCES.add("nih-cxr14", NihCxr14)
SOURCES.add("folder", Folder)
