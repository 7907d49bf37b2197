"""What torchrun does for a program, in a tenth of a second: starts the workers, and fails when one of them does."""

import os
import signal
import subprocess
import sys
import time

assert sys.argv[1] == "--module", sys.argv
pods, each, node = (int(os.environ[f"PET_{name}"]) for name in ("NNODES", "NPROC_PER_NODE", "NODE_RANK"))
assert os.environ["PET_MASTER_ADDR"] and os.environ["PET_MASTER_PORT"]
command = [sys.executable, "-m", *sys.argv[2:]]
workers = [
    subprocess.Popen(command, env=os.environ | {"RANK": str(node * each + one), "WORLD_SIZE": str(pods * each)})
    for one in range(each)
]
while True:
    codes = [worker.poll() for worker in workers]
    failed = [worker for worker, code in zip(workers, codes, strict=True) if code]
    if failed or None not in codes:
        break
    time.sleep(0.01)
for worker in workers if failed else ():
    worker.kill()
if failed and failed[0].returncode < 0:
    # A container is killed whole.
    os.kill(os.getpid(), -failed[0].returncode if failed[0].returncode == -signal.SIGKILL else signal.SIGTERM)
sys.exit(failed[0].returncode if failed else 0)
