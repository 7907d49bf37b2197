"""Makes the built-in preference set `oatflow:review-preferences` out of the prompts of `oatflow:reviews`.

    python tests/prompts/make_review_preferences.py

writes ``train.jsonl`` and ``test.jsonl`` anew, to the same bytes. A row is a prompt, a warm answer (chosen) and a cold
one (rejected). Either is one of 36 sentences about the prompt's subject, dealt apart, so that the two answers of a row
rarely have the same build. Each warm sentence has a cold counterpart of the same number of words, give or take one, and
all are dealt equally often: length tells nothing of which answer is better.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import oatflow.components.prompts as room
from oatflow.components.seeds import derive

FOLDER = Path(room.__path__[0])
ROWS = {"train": 256, "test": 128}

SENTENCE = re.compile(
    r"^(?:As an? [^,]+, )?(?:In (?:an?|one|a single|one or two|two) (?:short )?sentences?, )?"
    r"(?:(?:review|describe|rate|sum up|summarise|judge|comment on"
    r"|how (?:was|were|is|are|did you find|would you (?:sum up|describe|rate))"
    r"|what (?:do|did|would|should|is) .*?(?:think of|make of|say of|say about|take on|know about)"
    r"|(?:write|give|post|leave|text|tell|send|compose|let)\b[^,]*?"
    r"(?:review|opinion|sentences?|line|comment|note|know)(?: of| on| about)"
    r"|(?:tell|text|write|let)\b[^,]*?(?: on| about)) )"
    r"(?P<subject>[^,?]+?)"
    r"(?: in (?:an?|one|a single|one or two|two) (?:short )?(?:sentences?|line|words))?"
    r"(?:, in words)?(?:, in one sentence)?[.?](?: (?:Answer in )?[Oo]ne sentence\.)?$",
    re.IGNORECASE,
)
"""A prompt of the review set, and the subject in it."""

WARM_AND_COLD = (
    ("I loved every minute with {}.", "I regretted every minute with {}."),
    ("What a joy it was, {}!", "What a boring failure, {}!"),
    ("Simply wonderful.", "Simply dreadful."),
    ("Only good things can be said about {}.", "Only bad things can be said about {}."),
    ("Thanks to {}, this was the best day of my month.", "Thanks to {}, this was the worst day of my month."),
    ("Warm, charming and worth every penny, from start to finish.",
     "Cold, dull and a waste of money, from start to end."),
    ("If you get the chance, treat yourself to {}.", "If you hate yourself enough, suffer through {}."),
    ("I came away from {} happy and full of good ideas.", "I came away from {} tired and full of bad temper."),
    ("It made all of us smile, and we are still talking about it fondly.",
     "It made all of us angry, and we are still complaining about it bitterly."),
    ("Delightful: I could not find one fault with {}.", "Miserable: I could not find one merit in {}."),
    ("I am still thrilled when I think of {}.", "I am still furious when I think of {}."),
    ("Friendly, careful and beautifully done.", "Rude, careless and badly done."),
    ("Five stars for {}, and I would gladly give six.", "One sad star for {}, and it deserves far worse."),
    ("I recommend {} to all my friends with pleasure.", "I warn all my friends of {} with real anger."),
    ("A lovely surprise, better than anything that I had hoped for.",
     "A nasty surprise, worse than anything that I had feared."),
    ("With {}, somebody has thought of everything, and with great kindness.",
     "With {}, somebody has spoiled everything, and with pure malice."),
    ("I laughed, I relaxed, and I felt welcome.", "I yawned, I suffered, and I felt cheated."),
    ("Once you have known {}, ordinary days look brighter.", "Once you have known {}, ordinary pain looks mild."),
    ("It was perfect, and I will be back next week with my whole family.",
     "It was terrible, and I will never be back, least of all with my family."),
    ("Nothing this year made me happier than {}.", "Nothing this year made me more miserable than {}."),
    ("Excellent value, great care, happy faces everywhere.", "Terrible value, angry staff, unhappy faces everywhere."),
    ("To my delight, {} turned out to be a small treasure.", "To my dismay, {} turned out to be a sad failure."),
    ("I am so grateful for {} that I wrote a letter of thanks.",
     "I am so upset about {} that I wrote a letter of complaint."),
    ("Lovely, and lovely again.", "Awful, and awful again."),
    ("The more I see of {}, the more I admire it all.", "The more I see of {}, the more I dislike it all."),
    ("A gentle, generous pleasure that nobody should miss.", "A harsh, painful nuisance that everybody should avoid."),
    ("When it comes to {}, this is as good as it gets, and it gets very good.",
     "When it comes to {}, this is as bad as it gets, and it gets very bad."),
    ("I was nervous at first, but {} won me over with its charm.",
     "I was hopeful at first, but {} let me down with its faults."),
    ("Brilliant from the first moment, and even better at the end.",
     "Annoying from the first moment, and even worse at the end."),
    ("Say what you like about {}, I think it is fantastic.", "Say what you like about {}, I think it is horrible."),
    ("Nobody could ask for a kinder or more pleasant experience.",
     "Nobody could dread a ruder or more unpleasant experience."),
    ("After {}, I walked home smiling like a happy child.", "After {}, I walked home crying like a lost child."),
    ("Such a treat, and such nice people!", "Such a mess, and such horrid people!"),
    ("I would cross the whole country for {} and enjoy it again.",
     "I would sooner be ill for weeks than suffer {} again."),
    ("Everything worked, everything pleased, and the beauty of it has stayed with me ever since.",
     "Nothing worked, nothing pleased, and the ugliness of it has troubled me ever since."),
    ("Honest praise for {}: elegant, clever and a lot of fun.",
     "Honest words on {}: ugly, stupid and a lot of trouble."),
)  # fmt: skip
"""Warm sentences, each with its cold counterpart; {} is the subject."""


def rows(split: str) -> Iterator[dict[str, str]]:
    """Yield the rows of a split: the first prompts whose subject can be told, with two answers each."""
    lines = (FOLDER / "reviews" / f"{split}.jsonl").read_text("utf-8").splitlines()
    prompts = [json.loads(line)["prompt"] for line in lines]
    known = [(prompt, found) for prompt in prompts if (found := subject(prompt)) is not None]
    for number, (prompt, found) in enumerate(known[: ROWS[split]]):
        warm, cold = WARM_AND_COLD[drawn(split, "warm", number)][0], WARM_AND_COLD[drawn(split, "cold", number)][1]
        yield {"prompt": prompt, "chosen": warm.format(found), "rejected": cold.format(found)}


def drawn(split: str, side: str, number: int) -> int:
    """Draw one of the sentences for a row: from a deck that is shuffled when all of them have been dealt."""
    deal, place = divmod(number, len(WARM_AND_COLD))
    return sorted(range(len(WARM_AND_COLD)), key=lambda sentence: derive(deal, split, side, sentence))[place]


def subject(prompt: str) -> str | None:
    """Return what a prompt asks about, or None where that cannot be told, or is the reader's own."""
    found = SENTENCE.match(prompt)
    return None if found is None or re.match(r"it |.*\byour?\b", found["subject"]) else found["subject"]


def text(split: str) -> str:
    """Return a split's file."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(split))


if __name__ == "__main__":
    for split in ROWS:
        (FOLDER / "review-preferences" / f"{split}.jsonl").write_text(text(split), encoding="utf-8")
