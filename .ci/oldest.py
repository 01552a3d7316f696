"""Print the oldest versions that the lower bounds of pyproject.toml allow, as constraints for pip."""

import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
print("\n".join(requirement.replace(">=", "==") for requirement in project["dependencies"]))
