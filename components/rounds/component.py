"""The KFP components that begin and end a round."""

from typing import Any

from kfp import dsl
from oatflow.components.images import CONTROL


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def open_round(  # noqa: D417 (the settings are described where they are declared)
    ledger: str,
    run: str,
    prompt_data: str,
    eval_data: str,
    input_key: str,
    output_key: str,
    chosen_key: str,
    rejected_key: str,
    apply_chat_template: bool,
    rollout_batch_size: int,
    max_eval: int,
    num_samples: int,
    temperature: float,
    generate_max_length: int,
    tensor_parallel_size: int,
    exp_method: str,
    objective: str,
    model_rollout: bool,
    learn_rm: bool,
    rm_backbone: str,
    preference_oracle: str,
    reward: str,
    max_queries: int,
    scorer_model: str,
    remote_url: str,
    judge_model: str,
    judge_url: str,
    eval_oracle: str,
    pretrain: str,
    dap_algo: str,
    beta: float,
    learning_rate: float,
    train_batch_size: int,
    train_batch_size_per_device: int,
    max_epochs: int,
    sync_params_every: int,
    lora_rank: int,
    zero_stage: int,
    train_workers: int,
    opponent: str,
    eval_generate_max_length: int,
    eval_every: int,
    train_backend: str,
    train_image: str,
    train_pods: int,
    train_pod_gpus: str,
    train_pod_cpu: str,
    train_pod_memory: str,
    train_queue: str,
    train_node_selector: dict[str, Any],
    train_tolerations: list[Any],
    s3_secret: str,
    keys_secret: str,
    gpu_resource: str,
    sampler_gpus: str,
    sampler_cpu: str,
    sampler_memory: str,
    sampler_node_selector: dict[str, Any],
    sampler_tolerations: list[Any],
    oracle_gpus: str,
    oracle_cpu: str,
    oracle_memory: str,
    light_cpu: str,
    light_memory: str,
    light_cpu_request: str,
    light_memory_request: str,
    seed: int,
    more_settings: dict[str, Any],
) -> int:
    """Begin the experiment if it is new, claim its next round, and write the round's plan.

    Args:
        ledger: URI of the experiment, s3://bucket/prefix?endpoint=http://host:port.
        run: Who asks; the id of the pipeline run.
        more_settings: Settings without a field of their own, by section.

    Returns:
        Number of the round, or -1 when the experiment's budget is spent.
    """
    fields = dict(locals())
    from oatflow.components.step_ending import explain_failure

    with explain_failure(memory="raise resources.light_memory"):
        from oatflow.components.rounds.form import sections_of
        from oatflow.components.rounds.opening import open_round as work

        return work(fields.pop("ledger"), sections_of(fields), fields.pop("run"))


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def open_next_round(ledger: str, run: str) -> int:
    """Claim and plan the next round of a run that has opened a round before, with the settings of that round.

    Args:
        ledger: URI of the experiment.
        run: Id of the pipeline run.

    Returns:
        Number of the round, or -1 when the run has nothing more to do.
    """
    from oatflow.components.step_ending import explain_failure

    with explain_failure(memory="raise resources.light_memory"):
        from oatflow.components.rounds.opening import open_next_round as work

        return work(ledger, run)


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def close_round(
    ledger: str,
    round: int,
    run: str,
    policy: dsl.Input[dsl.Model],
    verdicts: dsl.Input[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
    summary: dsl.Output[dsl.Markdown],
) -> None:
    """Commit the round: chain it to the one before, move HEAD, and write the report. Fails where labels are in doubt.

    Args:
        ledger: URI of the experiment.
        round: Number of the round.
        run: Id of the pipeline run that claimed the round.
        policy: Window on the policy that the round made.
        verdicts: Window on the held-out verdicts.
        metrics: What the round measured.
        report: The experiment so far, one self-contained page.
        summary: The same in a few lines.
    """
    from oatflow.components.step_ending import explain_failure

    with explain_failure(memory="raise resources.light_memory"):
        from pathlib import Path

        from oatflow.components.ledger.ledger import Ledger
        from oatflow.components.ledger.windows import check_window
        from oatflow.components.reporting.curves import metrics_of
        from oatflow.components.reporting.page import render_report
        from oatflow.components.reporting.report import read_report
        from oatflow.components.reporting.summary import page_markdown
        from oatflow.components.reporting.tracking import track_round
        from oatflow.components.rounds.alarms import stop_in_doubt
        from oatflow.components.rounds.closing import close_round as work

        check_window(policy, Ledger.open(ledger), round, "policy")
        check_window(verdicts, Ledger.open(ledger), round, "evaluation")
        closed = work(ledger, round, run)
        found = read_report(closed)
        for name, value in metrics_of(found.rows[round]).items():
            metrics.log_metric(name, value)
        Path(report.path).write_text(render_report(found), encoding="utf-8")
        Path(summary.path).write_text(page_markdown(found), encoding="utf-8")
        track_round(closed, round)
        stop_in_doubt(closed, round)
