"""Print what the package always requires, or what its named extras do: extra.py FOLDER-OF-PYPROJECT [EXTRA ...]."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(sys.argv[1], "pyproject.toml").read_text(encoding="utf-8"))["project"]
extras = sys.argv[2:]
lists = [project["optional-dependencies"][extra] for extra in extras] if extras else [project["dependencies"]]
print("\n".join(requirement for requirements in lists for requirement in requirements))
