"""Ensembles: several models on one vocabulary, whose predictions are averaged.

`members` reads and writes ensemble.json, `jobs` and `prepare` make the members, `choose` finds the tokenizer with the
least excess, `agree` and `check` compare the members, `mix` is the model that averages them, `score` evaluates it.
"""
