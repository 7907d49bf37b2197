"""The chaos command for a bounded time: nothing is stuck, nothing is overpaid, nothing ends in a traceback."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_killed_raced_and_damaged_experiments_go_on_and_no_question_is_paid_twice():
    command = [sys.executable, "-m", "tests.chaos", "--seconds", "60", "--seed", "1", "--json"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    counts = json.loads(done.stdout)
    assert counts["broken"] == [] and done.returncode == 0, done.stderr
    assert (counts["cannot_go_on"], counts["paid_twice"], counts["overspent"]) == (0, 0, 0)
    assert counts["experiments"] and counts["kills"] and counts["billed"]
    assert counts["kills_survived"] == counts["kills"]
