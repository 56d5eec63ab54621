"""Real tokenizers through inspect, transplant and trim, checked by plain transformers alone.

`make field` fetches them and tries all; `make test` sends a few that are made here through the same steps. Nothing here
but the runner of command lines imports tokswap.
"""
