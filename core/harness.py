"""A trained run as a model of lm-evaluation-harness: its standard tasks, routed on the question.

The answers need no harness; `as_lm` does, from the `lm-eval` extra:

    lm_eval.simple_evaluate(model=as_lm(open_run(folder, runtime)), tasks=["arc_easy"])
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import InputError
from core.generate import Ids, generate, score_continuations
from core.subject import Subject

SHOT_DELIMITER = "\n\n"  # what the harness puts between solved examples and the question
NEW_TOKENS = 256  # generated where a task does not say


@dataclass(frozen=True)
class Answerer:
    """What the harness asks of a model. Texts are routed once, before their first new token."""

    subject: Subject

    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """Of each continuation behind its context: nats, and whether it is the greedy one.

        Routed on the question: the context without solved examples, as in arXiv 2510.02375, sec. 2.
        """
        encoded = [self._encode_pair(context, continuation) for context, continuation in pairs]
        paths = self.subject.route([question(context) for context, _ in pairs])
        prompts, continuations = [ids for ids, _ in encoded], [ids for _, ids in encoded]
        return [
            (found.logprob, found.greedy)
            for found in score_continuations(
                self.subject.model, self.subject.codec, prompts, continuations, paths
            )
        ]

    def loglikelihood_rolling(self, texts: Sequence[str]) -> list[float]:
        """Nats of whole texts, in windows as in training. Routed on the whole text, as the paper
        does for perplexity: the key sees the tokens that are predicted."""
        codec = self.subject.codec
        owners, chunks = [], []
        for owner, text in enumerate(texts):
            ids = codec.encode(text)
            for start in range(0, len(ids), codec.context):
                owners.append(owner)
                chunks.append(ids[start : start + codec.context])
        paths = self.subject.route(texts)
        found = score_continuations(
            self.subject.model,
            codec,
            [[]] * len(chunks),
            chunks,
            paths[owners],
        )
        totals = [0.0] * len(texts)
        for owner, likelihood in zip(owners, found, strict=True):
            totals[owner] += likelihood.logprob
        return totals

    def generate_until(self, requests: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
        """Greedy text behind each context, up to the first of its stop strings.

        Raises InputError where a task asks for sampling.
        """
        for _, options in requests:
            if options.get("do_sample"):
                raise InputError(
                    "the task asks for do_sample: true; generation here is greedy, "
                    "so set do_sample: false"
                )
        lengths = [options.get("max_gen_toks", NEW_TOKENS) for _, options in requests]
        answers = [""] * len(requests)
        for length in sorted(set(lengths)):
            rows = [row for row, other in enumerate(lengths) if other == length]
            contexts = [requests[row][0] for row in rows]
            paths = self.subject.route([question(context) for context in contexts])
            texts = generate(self.subject.model, self.subject.codec, contexts, paths, length)
            for row, text in zip(rows, texts, strict=True):
                answers[row] = _until(text, requests[row][1].get("until", []))
        return answers

    def _encode_pair(self, context: str, continuation: str) -> tuple[Ids, Ids]:
        """Tokens of both, cut where the context's own tokens end: the harness' convention. Blanks
        that close the context open the continuation, where byte-level tokens have them."""
        bare = context.rstrip()
        whole = self.subject.codec.encode(context + continuation)
        ids = self.subject.codec.encode(bare)
        return whole[: len(ids)], whole[len(ids) :]


def question(context: str) -> str:
    """The last example of a context: what stands behind the last empty line."""
    return context.rsplit(SHOT_DELIMITER, 1)[-1]


def _until(text: str, stops: str | Sequence[str]) -> str:
    """The text before the first stop string."""
    for stop in [stops] if isinstance(stops, str) else stops:
        text = text.split(stop, 1)[0] if stop else text
    return text


def as_lm(subject: Subject) -> Any:
    """The model that `lm_eval.simple_evaluate` takes. Raises InputError without the extra."""
    try:
        from lm_eval.api.model import LM
    except ImportError:
        raise InputError(
            "standard tasks need the package lm-eval, which is not installed; "
            "install the extra: pip install memscale[lm-eval]"
        ) from None
    answerer = Answerer(subject)

    class RunLM(LM):  # type: ignore[misc]
        def loglikelihood(self, requests: Any, **_: Any) -> list[tuple[float, bool]]:
            return answerer.loglikelihood([request.args for request in requests])

        def loglikelihood_rolling(self, requests: Any, **_: Any) -> list[float]:
            return answerer.loglikelihood_rolling([request.args[0] for request in requests])

        def generate_until(self, requests: Any, **_: Any) -> list[str]:
            return answerer.generate_until([request.args for request in requests])

    return RunLM()
