"""Text from one model: prompts that may end inside a token, and gaps to fill in.

`options` is what a user can set, `infill` puts a gap's two sides in the order that a model was trained on, `generate`
loads the model and continues the prompt with what `ensemble` has for that.
"""
