"""python -m tests.chaos"""

import sys

from .chaos import main

sys.exit(main())
