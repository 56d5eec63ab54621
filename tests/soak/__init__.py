"""Faults and damaged input on purpose: what `make soak` runs in full and the tests in short.

`commands` and `targets` are the tables: one row a command that writes, one row a kind of input that is read. `faults` and
`fuzz` run them, `child` is what runs in a process of its own, `__main__` is `make soak`.
"""
