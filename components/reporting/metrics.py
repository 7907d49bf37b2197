"""Every metric of a round, declared once: what it is, where it comes from, and where it is shown.

A new metric is a line in `METRICS`, its name in `SOURCES`, and a field of `RoundRow` or `Explored`. KFP, Weights &
Biases, MLflow, METRICS.md, the table of rounds and the live display read it from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .words import count, duration, interval, percent, rounded


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a round. `oat`: the closest metric of Oat, or "" where Oat logs none."""

    name: str
    unit: str
    meaning: str
    oat: str = ""


@dataclass(frozen=True, slots=True)
class TableColumn:
    """How the table of rounds shows a metric: its head, how the value is written, and the property with its interval.

    `silent`: a text that is not worth a column where no round has another one.
    """

    head: str
    written: Callable[[Any], str]
    interval: str = ""
    silent: str = ""


_SHARE, _OF_TEXT = "0 to 1", "tokens"
METRICS = (
    Metric("round", "number", "the round, from 0", "train/learning_round"),
    Metric("prompts", "prompts", "prompts of the round", "misc/prompt_consumed (their sum)"),
    Metric("duels", "duels", "duels of the round, including clashes", "actor/num_transitions"),
    Metric(
        "clashes",
        "duels",
        "duels of two equal answers, which the oracle never sees",
        "actor/init_clash_ratio (share)",
    ),
    Metric("queries", "queries", "duels that the oracle was asked about to learn from; the budget counts these"),
    Metric("queries_total", "queries", "their sum up to this round; curves run over it", "misc/query_step"),
    Metric("labels", "labels", "offline: labels that the preference set gave"),
    Metric("labels_total", "labels", "their sum up to this round; curves run over it"),
    Metric("pairs", "pairs", "pairs that the policy learned from", "misc/pi_buffer_len"),
    Metric("outside_pairs", "pairs", "pairs among them that were made elsewhere"),
    Metric("loss", "", "loss, mean over the pairs, each before the step that learns from it", "train/loss_mean"),
    Metric(
        "reward_margin",
        "",
        "implicit reward of the chosen minus that of the rejected answer, mean",
        "train/reward_margin",
    ),
    Metric(
        "accuracy", _SHARE, "pairs whose chosen answer has the higher implicit reward, while learning", "train/acc_mean"
    ),
    Metric(
        "chosen_logprob", "nats", "log-probability of the whole chosen answer under the policy, while learning, mean"
    ),
    Metric("rejected_logprob", "nats", "log-probability of the whole rejected answer, the same"),
    Metric("win_rate", _SHARE, "held-out prompts whose answer beats the opponent's", "eval/rm_win_rate"),
    Metric("low", _SHARE, "lower end of its 95% interval over the prompts"),
    Metric("high", _SHARE, "upper end of its 95% interval over the prompts"),
    Metric("mean_probability", _SHARE, "probability to beat the opponent's answer, mean", "eval/score"),
    Metric("mean_reward", "reward", "known reward of the held-out answers, mean"),
    Metric("opponent_mean_reward", "reward", "known reward of the opponent's answers, mean"),
    Metric("held_out", "prompts", "how many prompts the win rate is over"),
    Metric("sign_test_p", "", "two-sided p-value of a sign test of wins against losses, ties left out"),
    Metric("length_controlled_win_rate", _SHARE, "win rate expected of answers of equal length"),
    Metric("length_controlled_low", _SHARE, "lower end of its 95% interval over the prompts"),
    Metric("length_controlled_high", _SHARE, "upper end of its 95% interval over the prompts"),
    Metric("response_tokens", _OF_TEXT, "length of a held-out answer, mean"),
    Metric("opponent_tokens", _OF_TEXT, "length of the opponent's answer, mean"),
    Metric("held_out_accuracy", _SHARE, "held-out pairs of the preference set that the policy ranks as the set does"),
    Metric("held_out_margin", "", "implicit reward of their better minus that of their worse answer, mean"),
    Metric("held_out_pairs", "pairs", "how many pairs that is over"),
    Metric("generated_tokens", _OF_TEXT, "tokens of all candidates"),
    Metric("duel_regret", "reward", "reward of the best candidate minus the mean of the duel's two, mean over duels"),
    Metric("duel_regret_low", "reward", "lower end of its 95% interval over the prompts"),
    Metric("duel_regret_high", "reward", "upper end of its 95% interval over the prompts"),
    Metric("regret_duels", "duels", "how many duels that is over"),
    Metric("regret_total", "reward", "sum of the duels' regret up to this round"),
    Metric(
        "simple_regret", "reward", "reward of the best candidate minus that of the recommended one, mean over duels"
    ),
    Metric("simple_regret_low", "reward", "lower end of its 95% interval over the prompts"),
    Metric("simple_regret_high", "reward", "upper end of its 95% interval over the prompts"),
    Metric("anytime_regret", "reward", "mean of simple_regret over the rounds up to this one"),
    Metric(
        "online_win_rate",
        _SHARE,
        "both answers of each duel against the opponent's",
        "eval/online_win_probs (probability)",
    ),
    Metric("online_low", _SHARE, "lower end of its 95% interval over the prompts"),
    Metric("online_high", _SHARE, "upper end of its 95% interval over the prompts"),
    Metric(
        "online_mean_probability",
        _SHARE,
        "probability of a duel's answers to beat the opponent's, mean",
        "eval/online_win_probs",
    ),
    Metric("online_prompts", "prompts", "how many prompts that is over"),
    Metric(
        "clash_rate_before",
        _SHARE,
        "duels that were clashes before another challenger was picked",
        "actor/init_clash_ratio",
    ),
    Metric(
        "rm_loss",
        "",
        "loss of the ensemble on the pairs of the last step of its fit, before that step",
        "train/rm/loss_rew",
    ),
    Metric(
        "rm_accuracy",
        _SHARE,
        "labels of the picked duels that the ensemble predicted, before it learned from them; cannot compare "
        "strategies, which pick other duels",
        "eval/rm_acc (after)",
    ),
    Metric("rm_brier", _SHARE, "squared error of the predicted probability, mean"),
    Metric("rm_ece", _SHARE, "expected calibration error of the predicted probability"),
    Metric("rm_ece_calibrated", _SHARE, "the same of a perfectly calibrated forecaster, by chance alone"),
    Metric("rm_foretold", "duels", "how many labels that is over"),
    Metric("rm_pair_accuracy", _SHARE, "all pairs of candidates that the ensemble ranks as their known rewards do"),
    Metric("rm_pair_low", _SHARE, "lower end of its 95% interval over the prompts"),
    Metric("rm_pair_high", _SHARE, "upper end of its 95% interval over the prompts"),
    Metric("rm_pair_prompts", "prompts", "how many prompts that is over"),
    Metric(
        "uncertainty_chosen",
        "probability",
        "standard deviation over the members of a pair's win probability, mean over duels",
        "explorer/sel_pair_ep_uct_mean",
    ),
    Metric("uncertainty_all", "probability", "the same over all pairs of candidates", "explorer/all_ep_uct_mean"),
    Metric("synthetic", "pairs", "pairs labelled by a member of the ensemble", "explorer/model_data_ratio (share)"),
    Metric(
        "synthetic_accuracy",
        _SHARE,
        "synthetic pairs labelled as their known rewards say",
        "eval/model_rollout_acc",
    ),
    Metric("synthetic_known", "pairs", "how many pairs that is over"),
    Metric("training_queries", "queries", "the round's queries for labels"),
    Metric("evaluation_queries", "queries", "queries for the win rate; outside the budget"),
    Metric("online_queries", "queries", "queries for the online win rate; outside the budget"),
    Metric("unreadable", "queries", "answers that could not be read and give no label"),
    Metric("lost", "queries", "queries whose answer was lost when a process was killed"),
    Metric("undecided", "queries", "answers that neither is better; they give no label"),
    Metric("retried", "requests", "requests that were sent again"),
    Metric("unpaid", "duels", "duels not asked about because of the spending limit"),
    Metric("reused", "duels", "duels whose answer was already in the ledger"),
    Metric("cost", "currency", "cost of the round's queries, by the price list"),
    Metric("input_tokens", _OF_TEXT, "tokens that a judge read"),
    Metric("output_tokens", _OF_TEXT, "tokens that a judge wrote"),
    Metric("latency", "seconds", "median time of an answer", "actor/oracle_time (all answers)"),
    Metric("position_bias", "probability", "how often the answer shown first wins, minus one half"),
    Metric("position_spread", "probability", "standard deviation of that probability over the duels"),
    Metric("shown", "duels", "how many duels that is over"),
    Metric("consistent", _SHARE, "duels with the same winner in both orders"),
    Metric("asked_in_both_orders", "duels", "how many duels that is over"),
    Metric("krippendorff_alpha", "", "agreement of the annotators, Krippendorff's alpha"),
    Metric("krippendorff_low", "", "lower end of its 95% interval over the duels"),
    Metric("krippendorff_high", "", "upper end of its 95% interval over the duels"),
    Metric("agreed_upon", "duels", "how many duels were judged by two annotators or more"),
    Metric("seconds_sample", "seconds", "the step that draws answers and picks duels", "actor/generate_time"),
    Metric("seconds_label", "seconds", "the step that asks the oracle", "actor/oracle_time"),
    Metric("seconds_train", "seconds", "the step that trains the policy", "misc/gradient_update_elapse"),
    Metric("seconds_fit", "seconds", "the step that fits the ensemble"),
    Metric("seconds_evaluate", "seconds", "the step that measures the win rate"),
)

SOURCES: Mapping[str, tuple[str, ...]] = {
    "sampling": (
        "prompts", "duels", "clashes", "generated_tokens",
        "clash_rate_before", "uncertainty_chosen", "uncertainty_all", "synthetic",
    ),
    "policy": (
        "pairs", "outside_pairs", "loss", "reward_margin", "accuracy", "chosen_logprob", "rejected_logprob",
        "held_out_accuracy", "held_out_margin", "held_out_pairs",
    ),
    "reward_model": ("rm_loss",),
    "evaluation": (
        "win_rate", "low", "high", "mean_probability", "mean_reward", "opponent_mean_reward", "held_out",
        "duel_regret", "duel_regret_low", "duel_regret_high", "regret_duels",
        "simple_regret", "simple_regret_low", "simple_regret_high",
        "online_win_rate", "online_low", "online_high", "online_mean_probability", "online_prompts",
        "rm_accuracy", "rm_brier", "rm_ece", "rm_ece_calibrated", "rm_foretold",
        "rm_pair_accuracy", "rm_pair_low", "rm_pair_high", "rm_pair_prompts", "synthetic_accuracy", "synthetic_known",
    ),
}  # fmt: skip
"""The step whose counts and facts hold a metric. The others are computed: sums, the oracle's answers, the verdicts."""
_RECORDED_AS = {"held_out": "prompts"}
"""What a step calls a metric, where that is another name."""

TABLE: Mapping[str, TableColumn] = {
    "round": TableColumn("Round", str),
    "queries_total": TableColumn("Queries", count),
    "labels_total": TableColumn("Preferences", count),
    "win_rate": TableColumn("Win rate", percent),
    "win_interval": TableColumn("95% interval", lambda ends: interval(*ends or (None, None))),
    "online_win_rate": TableColumn("Online win rate", percent, "online_interval"),
    "duel_regret": TableColumn("Regret", rounded, "regret_interval"),
    "rm_accuracy": TableColumn("Foreseen", percent, "foresight_interval"),
    "rm_pair_accuracy": TableColumn("Pairs ranked", percent, "pair_interval"),
    "mean_reward": TableColumn("Reward", rounded),
    "opponent_mean_reward": TableColumn("Opponent's", rounded),
    "held_out_accuracy": TableColumn("Held-out accuracy", percent, "held_out_interval"),
    "pairs": TableColumn("Pairs", count),
    "synthetic": TableColumn("Synthetic", count, silent="0"),
    "clashes": TableColumn("Clashes", count),
    "loss": TableColumn("Loss", rounded),
    "reward_margin": TableColumn("Margin", rounded),
    "wall_seconds": TableColumn("Time", duration),
}
"""The columns of the table of rounds, in their order, by the name of the row's number."""


def _count_of(one: str, many: str) -> Callable[[Any], str]:
    return lambda number: f"{count(number)} {one if number == 1 else many}" if number else ""


LIVE: Mapping[str, Callable[[Any], str]] = {
    "prompts": _count_of("prompt", "prompts"),
    "generated_tokens": _count_of("token", "tokens"),
    "queries": _count_of("query", "queries"),
    "labels": _count_of("preference", "preferences"),
    "clashes": _count_of("clash", "clashes"),
    "pairs": _count_of("pair", "pairs"),
    "synthetic": lambda pairs: f"{count(int(pairs))} synthetic" if pairs else "",
    "duel_regret": lambda regret: f"regret {rounded(regret)}",
    "online_win_rate": lambda rate: f"online win rate {percent(rate)}",
    "rm_accuracy": lambda share: f"{percent(share)} of the labels foreseen",
}
"""What the live display says of a step's counts and facts, in this order."""
_HEAD = """# Metrics

What a finished round measures, by the names that Kubeflow Pipelines, Weights & Biases and MLflow show. A metric that
was not measured is not sent, which is not the same as zero. The last column names the closest metric in Oat, with any
difference in brackets. The x axis of the curves is `queries_total`, or `labels_total` offline; `round` is sent too.
"""


def read_numbers(marks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the recorded metrics by name, None where not measured. `marks`: counts and facts by step."""
    return {name: marks[step].get(_RECORDED_AS.get(name, name)) for step, names in SOURCES.items() for name in names}


def describe_live(numbers: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the live display says of a step's counts or facts."""
    known = ((say, numbers.get(name)) for name, say in LIVE.items())
    return (text for say, value in known if value is not None and (text := say(value)))


def metrics_page() -> str:
    """Return METRICS.md."""
    rows = [f"| `{metric.name}` | {metric.meaning} | {metric.unit} | {_code_of(metric.oat)} |" for metric in METRICS]
    return "\n".join([_HEAD, "| metric | what it is | unit | in Oat |", "| --- | --- | --- | --- |", *rows]) + "\n"


def _code_of(name: str) -> str:
    if not name:
        return ""
    metric, bracket, rest = name.partition(" (")
    return f"`{metric}`{bracket}{rest}"
