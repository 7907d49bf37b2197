"""Every metric that a round can have: what it is, what it is counted in, and what Oat calls it.

The names are those of `curves.metrics_of`: KFP, Weights & Biases and MLflow get the same. METRICS.md is this table;
a test holds both to what is logged.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a round. `oat`: the metric of Oat's that is closest, or nothing where it logs none."""

    name: str
    unit: str
    meaning: str
    oat: str = ""


_SHARE, _OF_TEXT = "0 to 1", "tokens"
METRICS = (
    Metric("round", "number", "the round, from 0", "train/learning_round"),
    Metric("prompts", "prompts", "prompts of the round", "misc/prompt_consumed (their sum)"),
    Metric("duels", "duels", "duels of the round, clashes too", "actor/num_transitions"),
    Metric(
        "clashes", "duels", "duels of two equal answers, about which nobody is asked", "actor/init_clash_ratio (share)"
    ),
    Metric("queries", "queries", "duels that the oracle was asked about to learn from; the budget counts these"),
    Metric("queries_total", "queries", "their sum up to this round; curves run over it", "misc/query_step"),
    Metric("labels", "labels", "offline: labels that the preference set gave"),
    Metric("labels_total", "labels", "their sum up to this round; curves run over it"),
    Metric("pairs", "pairs", "pairs that the policy learned from", "misc/pi_buffer_len"),
    Metric("outside_pairs", "pairs", "of the pairs, those that were made elsewhere"),
    Metric("loss", "", "loss, mean over the optimisation steps", "train/loss_mean"),
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
    Metric("length_controlled_win_rate", _SHARE, "win rate that is expected of answers of equal length"),
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
        "duels that were clashes before another challenger was looked for",
        "actor/init_clash_ratio",
    ),
    Metric("rm_loss", "", "loss of the ensemble after its fit", "train/rm/loss_rew"),
    Metric(
        "rm_accuracy", _SHARE, "labels that the ensemble foresaw, before it learned from them", "eval/rm_acc (after)"
    ),
    Metric("rm_brier", _SHARE, "squared error of the foreseen probability, mean"),
    Metric("rm_ece", _SHARE, "expected calibration error of the foreseen probability"),
    Metric("rm_foretold", "duels", "how many labels that is over"),
    Metric(
        "uncertainty_chosen",
        "probability",
        "deviation among members of a pair's win probability, mean over duels",
        "explorer/sel_pair_ep_uct_mean",
    ),
    Metric("uncertainty_all", "probability", "the same over all pairs of candidates", "explorer/all_ep_uct_mean"),
    Metric("synthetic", "pairs", "pairs that a member of the ensemble labelled", "explorer/model_data_ratio (share)"),
    Metric(
        "synthetic_accuracy",
        _SHARE,
        "of those whose rewards are known, labelled as these say",
        "eval/model_rollout_acc",
    ),
    Metric("synthetic_known", "pairs", "how many pairs that is over"),
    Metric("training_queries", "queries", "the round's queries for labels"),
    Metric("evaluation_queries", "queries", "queries for the win rate; outside the budget"),
    Metric("online_queries", "queries", "queries for the online win rate; outside the budget"),
    Metric("unreadable", "queries", "answers that could not be read, and are no labels"),
    Metric("lost", "queries", "queries whose answer a killed process did not keep"),
    Metric("undecided", "queries", "answers that neither is better, and are no labels"),
    Metric("retried", "requests", "requests that were sent again"),
    Metric("unpaid", "duels", "duels not asked about at the spending limit"),
    Metric("reused", "duels", "duels that the ledger had an answer to already"),
    Metric("cost", "currency", "what the round's queries cost, by the price list"),
    Metric("input_tokens", _OF_TEXT, "tokens that a judge read"),
    Metric("output_tokens", _OF_TEXT, "tokens that a judge wrote"),
    Metric("latency", "seconds", "median time of an answer", "actor/oracle_time (all answers)"),
    Metric("position_bias", "probability", "how often what is shown first wins, minus one half"),
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
_HEAD = """# Metrics

What a finished round measures, by the names that Kubeflow Pipelines, Weights & Biases and MLflow show. A metric that
was not measured is not sent: absent is not zero. Oat's name is that of the metric closest to ours; what differs is in
brackets. Curves run over `queries_total`, offline over `labels_total`; `round` is there too.
"""


def metrics_page() -> str:
    """Return METRICS.md."""
    rows = [f"| `{metric.name}` | {metric.meaning} | {metric.unit} | {_oats(metric.oat)} |" for metric in METRICS]
    return "\n".join([_HEAD, "| metric | what it is | unit | in Oat |", "| --- | --- | --- | --- |", *rows]) + "\n"


def _oats(name: str) -> str:
    if not name:
        return ""
    metric, bracket, rest = name.partition(" (")
    return f"`{metric}`{bracket}{rest}"
