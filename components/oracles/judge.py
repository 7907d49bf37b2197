"""An LLM as judge, behind any endpoint that speaks OpenAI's protocol.

Judges are biased towards one position. By default, a duel is asked in both orders and the two probabilities are
averaged, which cancels the bias. One order, drawn for each duel as in Oat, costs half as much; the bias is then noise
in the labels, which cancels only over many of them.

With a spending limit, the highest possible cost of a question (a token for every byte, all tokens of the verdict) is
reserved before it is asked, and the real cost is booked afterwards. If the endpoint does not count tokens, the highest
possible cost is booked. A failed request is assumed not to be billed.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace

from .. import seeds
from ..errors import SettingsError
from ..records.records import Duel
from .concurrent import ask_all
from .judge_endpoint import Endpoint, Reply
from .judge_prompt import Message, open_prompt
from .oracle import Answer, Circumstances, OracleFailed, SpendingLimit
from .patience import Breaker, Clock, GaveUp
from .settings import JudgeSettings
from .spending import Spending
from .verdicts import find_winner

TOKENS_OF_A_TEMPLATE = 64
"""Most tokens that a chat template adds to those of the messages."""


class JudgeOracle:
    """Asks a judge. The constructor raises `SettingsError` for settings that cannot work."""

    paid = True
    known_reward = None

    def __init__(self, settings: JudgeSettings, circumstances: Circumstances, clock: Clock | None = None):
        _check_settings(settings)
        self._settings, self._seed, self._clock = settings, circumstances.seed, clock or Clock()
        self._prompt = open_prompt(settings.judge_template, settings.judge_rubric)
        self._endpoint = Endpoint(settings)
        self._breaker = Breaker(
            self._endpoint.who, settings.judge_tries, settings.judge_patience, circumstances.say, clock=self._clock
        )
        self.spending = Spending(settings.judge_spending_limit)
        self._settled = threading.Condition()
        self._in_flight = 0

    @property
    def identity(self) -> str:
        """Model, host, template and rubric, orders, and the way in which verdicts are read."""
        settings, endpoint = self._settings, self._endpoint
        return (
            f"judge/{endpoint.model}@{endpoint.host}/{self._prompt.digest}/"
            f"{settings.judge_orders}/{settings.judge_verdict}"
        )

    def check_ready(self) -> None:
        """Raise `RefusedInput` if the endpoint cannot be reached or does not serve the model. Costs nothing."""
        self._endpoint.check_model()

    def compare_duels(self, duels: Sequence[Duel]) -> list[Answer]:
        """Ask about each duel. Raises `OracleFailed` or `SpendingLimit` with what was answered so far."""
        distinct = list({duel.duel_id: duel for duel in duels}.values())
        answers = ask_all(distinct, self._ask_duel, self._settings.judge_concurrency)
        return [answers[duel.duel_id] for duel in duels]

    def _ask_duel(self, duel: Duel) -> dict[str, Answer]:
        questions = {
            swapped: self._prompt.build_messages(duel, swapped, self._seed) for swapped in self._choose_orders(duel)
        }
        dearest = {swapped: self._price_dearest(messages) for swapped, messages in questions.items()}
        held, began, asked = sum(dearest.values()), self._clock.monotonic(), dict[bool, tuple[Reply, int]]()
        self._hold_money(held)
        try:
            for swapped, messages in questions.items():
                asked[swapped] = self._ask_endpoint(messages)
        except OracleFailed as failure:
            if asked:
                # Half of it was paid for: it is not asked again.
                seconds = self._clock.monotonic() - began
                half = combine_replies(asked, self._sum_costs(asked, dearest), seconds)
                failure.answers[duel.duel_id] = replace(half, first_wins=None, lost=True)
            raise
        finally:
            cost = self._sum_costs(asked, dearest)
            self._settle_money(held, cost)
        return {duel.duel_id: combine_replies(asked, cost, self._clock.monotonic() - began)}

    def _choose_orders(self, duel: Duel) -> list[bool]:
        if self._settings.judge_orders == "both":
            return [False, True]
        return [bool(seeds.derive(self._seed, duel.duel_id, "order") % 2)]

    def _ask_endpoint(self, messages: Sequence[Message]) -> tuple[Reply, int]:
        try:
            return self._breaker.ask(lambda: self._endpoint.send_messages(messages))
        except GaveUp as error:
            raise OracleFailed(f"{error}; see to the endpoint, then run again: what was answered is kept") from error

    def _hold_money(self, most: float) -> None:
        """Reserve money, if need be after questions in flight have left enough of theirs. Raises `SpendingLimit`."""
        with self._settled:
            while not self.spending.hold_money(most):
                if not self._in_flight:
                    raise SpendingLimit(self._describe_limit(most))
                self._settled.wait()
            self._in_flight += 1

    def _settle_money(self, held: float, cost: float) -> None:
        with self._settled:
            self.spending.settle_cost(held, cost)
            self._in_flight -= 1
            self._settled.notify_all()

    def _describe_limit(self, most: float) -> str:
        return (
            f"judge_spending_limit={self.spending.limit:g}: {self.spending.spent:.6g} is spent, and the next duel may "
            f"cost {most:.2g}; what was answered is kept, and a higher limit carries on with the next round"
        )

    def _price_dearest(self, messages: Sequence[Message]) -> float:
        most = sum(len(message["content"].encode()) for message in messages) + TOKENS_OF_A_TEMPLATE
        return self._price_tokens(most, self._settings.judge_max_tokens)

    def _sum_costs(self, asked: Mapping[bool, tuple[Reply, int]], dearest: Mapping[bool, float]) -> float:
        return sum(self._price_reply(reply, dearest[swapped]) for swapped, (reply, _) in asked.items())

    def _price_reply(self, reply: Reply, dearest: float) -> float:
        if reply.input_tokens is None or reply.output_tokens is None:
            return dearest
        return self._price_tokens(reply.input_tokens, reply.output_tokens)

    def _price_tokens(self, input_tokens: int, output_tokens: int) -> float:
        settings = self._settings
        return (input_tokens * settings.judge_input_price + output_tokens * settings.judge_output_price) / 1e6


def combine_replies(asked: Mapping[bool, tuple[Reply, int]], cost: float, seconds: float) -> Answer:
    """Combine the replies to one order or to both into one answer. Pure.

    If a reply is unreadable, so is the whole answer: the other order alone would bring the judge's position bias into
    the label. The answer is `consistent` if both orders have the same winner, or neither has one. It is `undecided` if
    both orders together give one half.
    """
    replies = {swapped: reply for swapped, (reply, _) in asked.items()}
    shown = [reply.first_wins for reply in replies.values() if reply.first_wins is not None]
    wins = [
        1 - reply.first_wins if swapped else reply.first_wins
        for swapped, reply in replies.items()
        if reply.first_wins is not None
    ]
    readable = len(wins) == len(replies)
    first_wins = sum(wins) / len(wins) if readable else None
    return Answer(
        first_wins=first_wins,
        undecided=first_wins == 0.5 and len(wins) == 2,
        orders="both" if len(replies) == 2 else ORDER[next(iter(replies))],
        shown_first_wins=sum(shown) / len(shown) if readable else None,
        consistent=find_winner(wins[0]) == find_winner(wins[1]) if readable and len(wins) == 2 else None,
        raw=json.dumps({ORDER[swapped]: reply.raw for swapped, reply in replies.items()}, ensure_ascii=False),
        requests=len(replies),
        retried=sum(failed for _, failed in asked.values()),
        seconds=seconds,
        input_tokens=_sum_known([reply.input_tokens for reply in replies.values()]),
        output_tokens=_sum_known([reply.output_tokens for reply in replies.values()]),
        cost=cost,
    )


ORDER = {False: "given", True: "swapped"}


def _sum_known(tokens: Sequence[int | None]) -> int | None:
    known = [count for count in tokens if count is not None]
    return sum(known) if len(known) == len(tokens) else None


def _check_settings(settings: JudgeSettings) -> None:
    if not settings.judge_model.strip():
        raise SettingsError("judge_model='': name the model that judges, as its endpoint calls it")
    if settings.judge_verdict == "logprobs" and settings.judge_max_tokens > 1:
        raise SettingsError(
            f"judge_max_tokens={settings.judge_max_tokens}: log-probabilities are read of the first token alone; "
            "set 1, or judge_verdict=parsed"
        )
    if settings.judge_spending_limit is not None and not (settings.judge_input_price or settings.judge_output_price):
        raise SettingsError(
            f"judge_spending_limit={settings.judge_spending_limit:g}: needs judge_input_price and judge_output_price, "
            "or nothing is ever spent"
        )
