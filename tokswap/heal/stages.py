"""The two stages of a healing: the teacher reads the text, then the student learns. One body is in memory at a time."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokswap.checkpoint.source import SourceModel
from tokswap.errors import InputError
from tokswap.evaluation.models import load_model
from tokswap.heal.amount import chances, fitting
from tokswap.heal.batches import Batches, batch_order
from tokswap.heal.inputs import HealInputs
from tokswap.heal.judge import Judged, judge
from tokswap.heal.memory import give_back
from tokswap.heal.project import crossing_rates, packed, teacher_pieces
from tokswap.heal.self_text import NAME, beginnings_of, cached_text, write_text
from tokswap.heal.shards import load_divided
from tokswap.heal.student import Student
from tokswap.heal.targets import KEEP, TargetStore, store_targets, targets_key
from tokswap.heal.teacher import Read, read_passages
from tokswap.heal.team import Team
from tokswap.heal.text import HealText, paired_passages, paired_text
from tokswap.heal.train import Course, DivergedError, HealTrainer, Places
from tokswap.tokenizer.languages import language

logger = logging.getLogger(__name__)

_WORDS = 3000
"""Most frequent words of a language, to begin texts with."""


@dataclass(frozen=True)
class Taught:
    """What the teacher has done.

    Attributes:
        text: The text to train on and to judge by.
        store: Targets of its passages; None where the student learns from the text alone.
        judged: The teacher on the held-out text.
        figures: What is known about it, for the report.
    """

    text: HealText
    store: TargetStore | None
    judged: Judged
    figures: Mapping[str, Any]

    @property
    def written(self) -> int:
        """Bytes of the training text that the teacher wrote."""
        return sum(one.bytes for one in self.text.training if one.name == NAME)


@dataclass(frozen=True)
class Learnt:
    """What the student has done.

    Attributes:
        student: The model, in its best state.
        before: It on the held-out text, before.
        after: It on the held-out text, in its best state.
        course: How the training went.
    """

    student: Student
    before: Judged
    after: Judged
    course: Course

    @property
    def better(self) -> bool:
        """Whether the held-out text is easier to predict than before."""
        return self.after.bits_per_byte < self.before.bits_per_byte


def teach(inputs: HealInputs, cache: Path, team: Team) -> Taught:
    """Let the teacher write text where that is asked for, and read all of it.

    Args:
        inputs: The models and the text.
        cache: Folder of cached targets.
        team: The processes that do it together: those that share the teacher, or one alone.

    Raises:
        InputError: text-too-small, text-changed, cannot-divide.
        OutputError: disk-full, cannot-write.
    """
    options, (side, own) = inputs.options, inputs.sides
    model = _loaded(inputs, inputs.teacher, inputs.dtype, team)
    text = inputs.text
    if options.self_text:
        parts = _written(inputs, model, cache, team)
        if text is None:
            text = paired_text(parts, side, own, share=options.held_out)
        else:  # any amount will do
            text = replace(text, training=(*text.training, *paired_passages(parts, side, own)[0]))
    assert text is not None
    begin = time.perf_counter()
    judged = judge(model, text.held_out, side.lead, teacher=True)
    text = team.shared(fitting(inputs, text, time.perf_counter() - begin))
    store = _targets(inputs, text, model, cache, team) if options.kl > 0 else None
    figures = {"projected": round(store.told, 4) if store else 0.0, "seconds": round(time.perf_counter() - begin, 1)}
    del model
    give_back(options.device)
    return Taught(text, store, judged, figures=figures)


def _written(inputs: HealInputs, model: Any, cache: Path, team: Team) -> list[tuple[str, str]]:
    """Return what the teacher writes, from the cache where it has written it before."""
    options, side = inputs.options, inputs.sides[0]
    own = inputs.text.training if inputs.text is not None else ()
    codes = tuple(options.self_text_languages)
    key = targets_key(inputs.teacher_identity, own, options.self_text, codes, options.seed, inputs.dtype)

    def texts() -> Iterable[str]:
        spoken = [language(code, _WORDS) for code in codes]
        kinds = beginnings_of(side, own, spoken, chances(own, options.chats), seed=options.seed)
        return write_text(model, side, kinds, options.self_text or 0, seed=options.seed)

    return cached_text(cache / f"written-{key}.jsonl", texts, team)


def _targets(inputs: HealInputs, text: HealText, model: Any, cache: Path, team: Team) -> TargetStore:
    """Return the targets of the training text, read by the teacher where they are not in the cache."""
    (side, own), top = inputs.sides, inputs.options.top
    pairs = [(one.teacher, one.student) for one in text.training]
    crossed = crossing_rates(pairs, len(side.tokenizer.vocabulary))
    pieces = packed(teacher_pieces(side.tokenizer, own.tokenizer), crossed)
    # Tokens that the text does not have are targets too, so the text alone does not tell one tokenizer from another.
    own_ids = hashlib.sha256(pieces.ids.tobytes() + pieces.start.tobytes()).hexdigest()
    key = targets_key(inputs.teacher_identity, text.training, top, KEEP, inputs.dtype, own_ids)
    with team.in_turn():
        store = TargetStore.open(cache / f"targets-{key}", text.training)

    def read(missing: Collection[int]) -> Iterable[Read]:
        return read_passages(model, [one.teacher.ids for one in text.training], side.lead, top=top, missing=missing)

    store_targets(store, text.training, read, pieces, team)
    return store


def learn(inputs: HealInputs, taught: Taught, folder: Path, *, team: Team) -> Learnt:
    """Train the student, and keep its best state.

    Args:
        inputs: The models.
        taught: What the teacher has done.
        folder: Where checkpoints of the training go.
        team: The processes that share the work. A checkpoint that is there is gone on from.

    Raises:
        InputError: training-diverged, no-lora-targets, no-plain-embeddings, cannot-divide.
    """
    options, own = inputs.options, inputs.sides[1]
    full = options.train == "full"
    model = _loaded(inputs, inputs.student, "float32" if full else inputs.dtype, team)
    autocast = full and inputs.dtype == "bfloat16"
    own_model = _own_copy(model, inputs)
    student = Student(own_model, options, reach=inputs.reach, autocast=autocast, new=inputs.new, fixed=inputs.fixed)
    text = taught.text

    def measured() -> Judged:
        student.eval()
        return judge(student.causal, text.held_out, own.lead)

    before = measured()
    order = batch_order([len(one.student.ids) for one in text.training], options)
    batches = Batches(text.training, own.lead, order, store=taught.store, processes=team.size)
    places = Places(folder, team)
    trainer = HealTrainer(student, batches, options, judge=lambda: measured().bits_per_byte, places=places)
    trainer.course.held_out.append((0, 0, round(before.bits_per_byte, 5)))
    student.train()
    try:
        trainer.train(resume_from_checkpoint=_last(folder))
    except DivergedError as error:
        message = f"the loss of step {error.args[0]:,} is not finite"
        if trainer.state.best_model_checkpoint is None:
            hint = "nothing was written; try a smaller --rate and --embedding-rate"
            raise InputError("training-diverged", message, hint, model=inputs.student.name) from error
        trainer._load_best_model()
        trainer.course.stopped = f"{message}; the best state before it was kept"
    return Learnt(student, before, after=measured(), course=trainer.course)


def _loaded(inputs: HealInputs, source: SourceModel, dtype: str, team: Team) -> Any:
    """Load a model in evaluation mode, or the part of it that this process gets; one in memory is as it is."""
    if source.loaded is not None:
        return source.loaded.model
    options = inputs.options

    def read(device: str) -> Any:
        trust = options.trust_remote_code
        return load_model(source.checkpoint.folder, dtype=dtype, device=device, trust_remote_code=trust)[0]

    return load_divided(lambda: read("cpu"), team, options.device) if options.shard else read(options.device)


def _own_copy(model: Any, inputs: HealInputs) -> Any:
    """Return the model, or a copy of one that is the user's."""
    if inputs.student.loaded is None:
        return model
    import copy

    found = copy.deepcopy(model)
    return found.float() if inputs.options.train == "full" else found


def _last(folder: Path) -> str | None:
    """Return the last whole checkpoint of a training, None without one."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    whole = [path for path in found if (path / "trainer_state.json").is_file()]
    if whole:
        logger.info("going on from %s", whole[-1])
    return str(whole[-1]) if whole else None
