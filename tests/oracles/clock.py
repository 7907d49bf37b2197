"""A clock for tests of patience."""

import threading

from oatflow.components.oracles.patience import Clock


class Time:
    """A clock that only sleeping moves."""

    def __init__(self):
        self.now = 0.0
        self.slept = []
        self.lock = threading.Lock()
        self.clock = Clock(lambda: self.now, self.sleep)

    def sleep(self, seconds):
        with self.lock:
            self.now += seconds
            self.slept.append(seconds)
