"""Imported once by the process that children are forked from."""

from soak.child import preload

preload()
