"""The model card of a result: its README.md, with the front matter that the hub reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokswap.errors import count_of
from tokswap.report.wording import COVERAGE, KEPT, size
from tokswap.storage.resolve import short_name

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

_TAGS = {
    "transplant": ("tokenizer-transplant",),
    "trim": ("vocabulary-trimming",),
    "extend": ("vocabulary-extension",),
    "draft": ("tokenizer-transplant", "speculative-decoding"),
}
_LICENSE_FIELDS = ("license", "license_name", "license_link")
_TRIM_SETTINGS = ("languages", "scripts", "words", "target_size", "min_count", "coverage")


@dataclass(frozen=True)
class _SourceCard:
    """The parts of the source model's card that the new one uses.

    Attributes:
        license: Licence fields of its front matter, by name.
        text: Its Markdown, without the front matter.
    """

    license: Mapping[str, str]
    text: str


def model_card(
    report: Mapping[str, Any],
    *,
    source_card: str | None,
    target_license: str | None,
    auto_class: str = "AutoModelForCausalLM",
) -> str:
    """Write the model card of a transplant, a trim, an extension or a draft.

    Args:
        report: The report of the run (`Report.as_dict`, or tokswap.json).
        source_card: README.md of the source model, None where it has none.
        target_license: Licence of the target tokenizer, None where it is not known.
        auto_class: Class of transformers that loads the result.

    Returns:
        Markdown with YAML front matter.
    """
    plan = report["plan"]
    source = _read_card(source_card or "")
    name = Path(plan["out"]).name
    parts = [
        f"---\n{_front_matter(report, source).to_yaml()}\n---",
        f"# {name}",
        _summary(plan),
        "## Method",
        _method(report),
        *(["## Healing", healing_text(report["heal"])] if "heal" in report else []),
        "## Figures",
        _figures(plan),
        "## How to load it",
        _loading(name, auto_class),
        "## What to check",
        _checks(plan, name),
        "## Licences",
        _licences(plan, source.license, target_license),
    ]
    if source.text:
        parts += ["---", f"The card of the source model, {_linked(plan['model'])}, follows.", source.text]
    return "\n\n".join(parts) + "\n"


def healed_card(report: Mapping[str, Any], before: str | None) -> str:
    """Write the model card of a healed model that no tokswap.json describes: the card that it had, and what was done.

    Args:
        report: The report of the healing.
        before: README.md of the model before, None where it has none.
    """
    card = before or f"# {Path(report['heal']['out']).name}"
    return f"{card.rstrip()}\n\n## Healing\n\n{healing_text(report['heal'])}\n"


def healing_text(found: Mapping[str, Any]) -> str:
    """Describe a healing in Markdown: what was trained, on how much text, and what it gave."""
    text, what = found["text"], found["train"]["what"]
    apart = found["train"].get("save") == "adapter"
    adapter = "embeddings and a LoRA adapter of the body" + ("" if apart else ", merged")
    learnt = {"adapter": adapter, "embeddings": "embeddings alone"}
    learnt["new"] = "the rows that were initialised, and nothing else"
    written = text["written_by_the_teacher"]
    tokens = count_of(text["tokens"], "token")
    source = f", {size(written)} of it written by the teacher itself" if written else ""
    before, after = found["excess_before"], found["excess_after"]
    rows = [
        ("held-out text", "excess before, bits per byte", "excess after"),
        *((name, f"{before[name]:+.3f}", f"{after[name]:+.3f}") for name in before),
    ]
    return (
        f"Trained to predict what {_linked(found['teacher'])} does with its own tokenizer: "
        f"{learnt.get(what, 'all weights')}, on {size(text['bytes'])} of text ({tokens}{source}), in "
        f"{count_of(found['steps'], 'step')}.\n\n{_table(rows)}"
    )


def license_of(card: str | None) -> str | None:
    """Return the licence that the front matter of a model card names, None where it names none."""
    return _license_name(_read_card(card or "").license)


def _read_card(card: str) -> _SourceCard:
    from huggingface_hub import ModelCard
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    card = card.lstrip("\ufeff")
    block = REGEX_YAML_BLOCK.search(card)
    if block is None:
        return _SourceCard({}, card.strip())
    try:
        data = ModelCard(card, ignore_metadata_errors=True).data.to_dict()
    except Exception:  # damaged YAML fails in many ways, and must not end a run: the licence is unknown then
        data = {}
    found = {key: data[key] for key in _LICENSE_FIELDS if isinstance(data.get(key), str)}
    return _SourceCard(found, card[block.end() :].strip())


def _license_name(fields: Mapping[str, str]) -> str | None:
    return fields.get("license_name") or fields.get("license")


def _front_matter(report: Mapping[str, Any], source: _SourceCard) -> ModelCardData:
    from huggingface_hub import ModelCardData

    plan = report["plan"]
    base = plan["model"] if _is_hub_id(plan["model"]) else None
    # The hub knows adapter, merge, quantized and finetune. Healing is training, so it is the last.
    relation = "finetune" if base and report.get("heal") else None
    tags = ["tokswap", *_TAGS.get(plan["operation"], ())]
    fields = {"base_model_relation": relation} if relation else {}
    return ModelCardData(base_model=base, library_name="transformers", tags=tags, **source.license, **fields)


def _is_hub_id(name: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return "/" in name and not Path(name).exists()  # a folder outranks a hub id of the same name


def _linked(name: str) -> str:
    """A model's name: a link where the hub has it, else without the folders that lead to it."""
    return f"[{name}](https://huggingface.co/{name})" if _is_hub_id(name) else f"`{short_name(name)}`"


def _summary(plan: Mapping[str, Any]) -> str:
    model, tokenizer = _linked(plan["model"]), _linked(plan["tokenizer"])
    if plan["operation"] == "trim":
        return f"This model is {model} with a smaller vocabulary: tokens that are not needed were removed with tokswap."
    if plan["operation"] == "extend":
        return f"This model is {model} with {count_of(len(plan['added']), 'new token')}, added with tokswap."
    if plan["operation"] == "draft":
        return f"This model is {model} with the vocabulary of {tokenizer}, a draft for its speculative decoding."
    return f"This model is {model} with the tokenizer of {tokenizer}, transplanted with tokswap."


def _method(report: Mapping[str, Any]) -> str:
    plan = report["plan"]
    if plan["operation"] == "trim":
        rows: dict[str, object] = {"texts": [Path(corpus["name"]).name for corpus in plan.get("corpora", ())]}
        rows |= {key.replace("_", " "): plan["options"].get(key) for key in _TRIM_SETTINGS}
    else:
        chosen = {found["chosen"]["all"] for found in report.get("evidence", {}).values() if "chosen" in found}
        rows = {
            "method": plan["method"],
            "chosen by it": sorted(chosen),
            "settings": [f"{key}={value}" for key, value in plan["settings"].items() if not isinstance(value, dict)],
            "method for lm_head": plan["output_method"],
            "donor": plan["donor"] and short_name(plan["donor"]),
        }
    lines = [f"- {name}: {_said(value)}" for name, value in rows.items() if value not in (None, "", [], ())]
    version = report.get("versions", {}).get("tokswap", "")
    return "\n".join([*lines, f"- tokswap {version}; `tokswap.json` holds the whole report"])


def _said(value: object) -> str:
    return ", ".join(f"`{one}`" for one in (value if isinstance(value, list | tuple) else [value]))


def _figures(plan: Mapping[str, Any]) -> str:
    rows = sum(plan["coverage"].values())
    before = max((matrix["shape_before"] or [0])[0] for matrix in plan["tables"])
    parameters = [f"{plan[f'parameters_{when}'] / 1e6:,.1f} M" for when in ("before", "after")]
    sizes = [
        ("", "source model", "this model"),
        ("rows of the input embeddings", f"{before:,}", f"{rows:,}"),
        ("parameters", *parameters),
        ("weights", size(plan["bytes_before"]), size(plan["bytes_after"])),
    ]
    reasons = {**COVERAGE, **KEPT}
    counts = sorted(plan["coverage"].items(), key=lambda item: -item[1])
    shares = [
        (reasons.get(reason, reason).format(method=plan["method"]), f"{count:,}", f"{100 * count / rows:.1f} %")
        for reason, count in counts
    ]
    return _table(sizes) + "\n\n" + _table([("rows of this model", "count", "share"), *shares])


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([head, "| --- |" + " ---: |" * (len(rows[0]) - 1), *body])


def _loading(name: str, auto_class: str) -> str:
    return f"""Replace `{name}` with the path of this folder, or with its id on the hub.

```python
from transformers import AutoTokenizer, {auto_class}
tokenizer = AutoTokenizer.from_pretrained("{name}")
model = {auto_class}.from_pretrained("{name}")
```"""


def _checks(plan: Mapping[str, Any], name: str) -> str:
    source = plan["model"] if _is_hub_id(plan["model"]) else short_name(plan["model"])
    draft = f" --draft-for {short_name(plan['tokenizer'])}" if plan["operation"] == "draft" else ""
    return f"""`verify` checks that the files fit together and that copied rows equal those of the source model.
`eval` compares the bits per byte of both models on a text of yours.

```
tokswap verify {name} --against {source}{draft}
tokswap eval {name} --against {source} --text FILE
```"""


def _licences(plan: Mapping[str, Any], source: Mapping[str, str], target: str | None) -> str:
    unknown = "not stated on its card"
    lines = [f"- weights, from {_linked(plan['model'])}: {_license_name(source) or unknown}"]
    if plan["tokenizer"] != plan["model"]:
        lines.append(f"- tokenizer, from {_linked(plan['tokenizer'])}: {target or unknown}")
    return "\n".join(lines)
