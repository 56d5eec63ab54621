"""Ensembles: several models on one vocabulary. Prepares the members, proves that they agree, and mixes their predictions.

`members` reads and writes ensemble.json, `prepare` makes the members, `choose` finds the tokenizer that costs least, `agree` and
`check` compare them, `mix` is the model that averages them, `score` judges it.
"""
