"""Faults and damaged inputs, made on purpose: `make soak` runs all of them, the tests run a few.

`commands` lists every command that writes, and `targets` every kind of input that is read. `faults` runs commands into
trouble, `fuzz` reads damaged inputs, and `child` is what runs in a process of its own. `__main__` is `make soak`.
"""
