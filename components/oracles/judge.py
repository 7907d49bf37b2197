"""An LLM as judge, behind any endpoint that speaks OpenAI's protocol.

Judges are biased towards one position. By default, a duel is asked in both orders and the two probabilities are
averaged, which cancels the bias. One order, drawn for each duel as in Oat, costs half as much; the bias is then noise
in the labels, which cancels only over many of them.

With a spending limit, the highest possible cost of a question (a token for every byte, all tokens of the verdict) is
reserved before it is asked, and the real cost is booked afterwards. The highest possible cost is booked if the endpoint
does not count tokens, and for every request that failed after it may have been answered: that timed out, broke off, or
came back malformed. A request that failed otherwise is not billed.
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
from .patience import Breaker, Clock, GaveUp, TryAgain
from .settings import JudgeSettings
from .spending import Bill, Spending
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
        self.spending = Spending(settings.judge_spending_limit, self._price_duel)
        self._worst_surprise = 1.0
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
        questions, began = self._build_questions(duel), self._clock.monotonic()
        asked = dict[bool, tuple[Reply, int]]()
        dearest = {swapped: self._price_dearest(messages) for swapped, messages in questions.items()}
        bill = self._open_bill(sum(dearest.values()))
        try:
            for swapped, messages in questions.items():
                asked[swapped] = self._ask_endpoint(messages, dearest[swapped], bill)
        except OracleFailed as failure:
            if asked:
                # Half of it was paid for: it is not asked again.
                half = combine_replies(asked, bill.paid, self._clock.monotonic() - began)
                failure.answers[duel.duel_id] = replace(half, first_wins=None, lost=True)
            elif bill.paid:
                failure.answers[duel.duel_id] = Answer(None, cost=bill.paid, unanswered=True)
            raise
        finally:
            self._close_bill(bill)
        return {duel.duel_id: combine_replies(asked, bill.paid, self._clock.monotonic() - began)}

    def _build_questions(self, duel: Duel) -> dict[bool, list[Message]]:
        return {
            swapped: self._prompt.build_messages(duel, swapped, self._seed) for swapped in self._choose_orders(duel)
        }

    def _choose_orders(self, duel: Duel) -> list[bool]:
        if self._settings.judge_orders == "both":
            return [False, True]
        return [bool(seeds.derive(self._seed, duel.duel_id, "order") % 2)]

    def _ask_endpoint(self, messages: Sequence[Message], dearest: float, bill: Bill) -> tuple[Reply, int]:
        is_reserved = True

        def send_once() -> Reply:
            nonlocal is_reserved
            # What was reserved for this question went to a request that failed. Never wait here for the money of
            # other questions: they may wait for this one to find out whether the endpoint answers again.
            if not is_reserved and not bill.hold_more(dearest):
                raise SpendingLimit(self._describe_limit(dearest))
            is_reserved = True
            try:
                reply = self._endpoint.send_messages(messages)
            except TryAgain as failure:
                if failure.may_be_paid:
                    bill.pay(dearest, dearest)
                    is_reserved = False
                raise
            bill.pay(dearest, self._price_reply(reply, dearest))
            return reply

        try:
            return self._breaker.ask(send_once)
        except GaveUp as error:
            raise OracleFailed(f"{error}; see to the endpoint, then run again: what was answered is kept") from error

    def _open_bill(self, most: float) -> Bill:
        """Reserve money, if need be after questions in flight have left enough of theirs. Raises `SpendingLimit`."""
        bill = Bill(self.spending)
        with self._settled:
            while not bill.hold_more(most):
                if not self._in_flight:
                    raise SpendingLimit(self._describe_limit(most))
                self._settled.wait()
            self._in_flight += 1
        return bill

    def _close_bill(self, bill: Bill) -> None:
        with self._settled:
            bill.close()
            self._in_flight -= 1
            self._settled.notify_all()

    def _describe_limit(self, most: float) -> str:
        return (
            f"judge_spending_limit={self.spending.limit:g}: {self.spending.spent:.6g} is spent, and the next duel may "
            f"cost {most:.2g}; what was answered is kept, and a higher limit carries on with the next round"
        )

    def _price_duel(self, duel: Duel) -> float:
        return sum(map(self._price_dearest, self._build_questions(duel).values()))

    def _price_dearest(self, messages: Sequence[Message]) -> float:
        most = sum(len(message["content"].encode()) for message in messages) + TOKENS_OF_A_TEMPLATE
        return self._price_tokens(most, self._settings.judge_max_tokens) * self._worst_surprise

    def _price_reply(self, reply: Reply, dearest: float) -> float:
        if reply.input_tokens is None or reply.output_tokens is None:
            return dearest
        cost = self._price_tokens(reply.input_tokens, reply.output_tokens)
        if cost > dearest:
            # The endpoint counts tokens that nothing here can see, such as those of its own instructions.
            self._worst_surprise = max(self._worst_surprise, cost / dearest)
        return cost

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
