"""Continues prompts, or fills gaps in, with one model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tokswap.checkpoint.loaded import ModelLike, as_loaded
from tokswap.ensemble.boundary import Prompt
from tokswap.ensemble.bytewise.canonical import check_family
from tokswap.ensemble.generate import Continuation, continue_text
from tokswap.evaluation.models import load_model, without_dropout
from tokswap.evaluation.prompts import check_prompt
from tokswap.generation.infill import find_markers, gap_prompt
from tokswap.generation.options import GenerateOptions
from tokswap.options.keywords import two_and_keywords
from tokswap.storage.resolve import resolve_model
from tokswap.tokenizer.loaded import read_loaded
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer


@two_and_keywords(GenerateOptions)
def generate_text(model: ModelLike, prompt: str, options: GenerateOptions) -> Continuation:
    """Continue a prompt with a model, or fill in the gap between it and a suffix.

    The prompt may end inside a token, such as half a word: every token counts that spells the end of the prompt and
    goes on, by the probability that the model gives it. Tokenizers of other kinds than BPE take it as it is tokenized.

    Args:
        model: Folder, hub id, alias or .gguf file, or a loaded model with its tokenizer. A name is loaded at each call.
        prompt: The beginning of the text.
        options: See below.

    Returns:
        The text after the prompt, and whether the prompt was allowed to end inside a token.

    Raises:
        UsageError: bad-temperature, bad-setting, bad-prompt, empty-prompt, unknown-token, bad-device.
        InputError: no-fim-markers; not-bytewise where exact_prompt is asked for and cannot be; what loading raises.

    Reference:
        arXiv 2410.09303 (cover encodings).
    """
    return generate_with(open_model(model, [prompt], options), prompt, options)


def generate_with(
    loaded: tuple[Any, Any],
    prompt: str,
    options: GenerateOptions,
    write: Callable[[str], object] = lambda text: None,
) -> Continuation:
    """Do what `generate_text` does, with an options object.

    Args:
        loaded: The model and its transformers tokenizer.
        prompt: The beginning of the text.
        options: How to write.
        write: Called with each piece of text.
    """
    model, tokenizer = loaded
    given: str | Prompt = prompt
    if options.suffix is not None:
        read = read_loaded(tokenizer)
        markers = find_markers(read, options.fim_markers)
        given = gap_prompt(read, prompt, options.suffix, markers=markers, order=options.fim_order)
    with without_dropout(model):
        return continue_text(
            model,
            tokenizer,
            given,
            tokens=options.tokens,
            temperature=options.drawn_at,
            seed=options.seed,
            exact=options.exact_prompt is not False,
            write=write,
        )


def open_model(model: ModelLike, prompts: Sequence[str], options: GenerateOptions) -> tuple[Any, Any]:
    """Return a model and its transformers tokenizer. What is wrong with the request is said before weights are read.

    Args:
        model: The model, or its name.
        prompts: What it will continue.
        options: How it will write.

    Raises:
        UsageError: bad-prompt, bad-setting, unknown-token.
        InputError: no-fim-markers, not-bytewise, and what loading raises.
    """
    for text in (*prompts, options.suffix or ""):
        check_prompt(text)
    trust = options.trust_remote_code
    loaded = as_loaded(model, trust_remote_code=trust)
    if loaded is not None:
        _check(options, lambda: read_loaded(loaded.tokenizer))
        return loaded.model, loaded.tokenizer
    folder = resolve_model(str(model))
    _check(options, lambda: read_tokenizer(folder, trust_remote_code=trust))
    return load_model(folder, dtype=options.dtype, device=options.device, trust_remote_code=trust)


def _check(options: GenerateOptions, read: Callable[[], Tokenizer]) -> None:
    """Refuse what the tokenizer cannot do. It is read only where something depends on it."""
    if options.exact_prompt:
        check_family(read())
    if options.suffix is not None:
        find_markers(read(), options.fim_markers)
