"""How often each 95% interval holds the true mean: `python tests/statistics/measure_coverage.py`.

20,000 samples each (seed 1), in percent, with the percentile bootstrap that was used before on 2,000 of them:

| law | n | `mean_interval` | percentile bootstrap |
| --- | ---: | ---: | ---: |
| log-normal | 20 | 93.4 | 83.9 |
| log-normal | 50 | 93.3 | 88.9 |
| log-normal | 200 | 93.9 | 92.5 |
| exponential | 20 | 94.7 | 89.6 |
| exponential | 50 | 94.9 | 92.0 |
| exponential | 200 | 94.9 | 93.8 |
| mixture (60% zeros) | 20 | 96.8 | 86.2 |
| mixture (60% zeros) | 50 | 95.9 | 91.7 |
| mixture (60% zeros) | 200 | 95.0 | 93.2 |
| normal | 20 | 94.8 | 93.0 |
| normal | 50 | 94.9 | 95.0 |
| normal | 200 | 95.0 | 94.6 |
"""

from __future__ import annotations

import sys

import numpy as np
from oatflow.components.statistics.intervals import mean_interval

LAWS = {
    "log-normal": (lambda random, size: random.lognormal(0, 1, size), np.exp(0.5)),
    "exponential": (lambda random, size: random.exponential(1, size), 1.0),
    "mixture (60% zeros)": (lambda random, size: random.exponential(1, size) * (random.random(size) < 0.4), 0.4),
    "normal": (lambda random, size: random.normal(0, 1, size), 0.0),
}


def percentile_interval(values, random):
    """Return the interval of the percentile bootstrap with 1,000 resamples."""
    counts = random.multinomial(len(values), np.full(len(values), 1 / len(values)), size=1000)
    return np.quantile(counts @ values / len(values), [0.025, 0.975])


def measure(law, n, samples, interval):
    """Return the share of samples whose interval holds the true mean; a sample without an interval does not."""
    draw, truth = LAWS[law]
    held = 0
    for values in draw(np.random.default_rng(1), (samples, n)):
        ends = interval(values)
        held += ends is not None and ends[0] <= truth <= ends[1]
    return held / samples


if __name__ == "__main__":
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    for law in LAWS:
        for n in (20, 50, 200):
            random = np.random.default_rng(2)
            ours = measure(law, n, samples, mean_interval)
            former = measure(
                law, n, max(1, samples // 10), lambda values, random=random: percentile_interval(values, random)
            )
            print(f"| {law} | {n} | {100 * ours:.1f} | {100 * former:.1f} |", flush=True)
