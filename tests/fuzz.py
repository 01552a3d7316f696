"""Run all fuzzers at length, and write the table of what came of their cases into docs/security.md.

python tests/fuzz.py [SEED]: 10,000 mutated pictures, 500 damaged videos, 300 damaged states and models. It stops at the
first case that is not explained, with the case's number. A bounded part with another seed runs in
tests/unit/test_fuzz.py.
"""

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import fuzz_images
import fuzz_states
import fuzz_videos

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "security.md"
FIRST, LAST = "<!-- begin: python tests/fuzz.py -->\n", "<!-- end -->\n"
FUZZERS = {
    "mutated pictures": (fuzz_images.run, 10_000),
    "damaged videos": (fuzz_videos.run, 500),
    "damaged states and models": (fuzz_states.run, 300),
}


def table(counts: dict[str, Counter[str]], seed: int, commit: str) -> str:
    """The table, and a line that says where it is from."""
    lines = [f"Commit {commit}, seed {seed}.\n", "| tried | outcome | cases |", "|---|---|---|"]
    for tried, outcomes in counts.items():
        head = f"{outcomes.total():,} {tried}"
        for outcome, number in [*outcomes.most_common(), ("not explained", 0)]:
            lines.append(f"| {head} | {outcome} | {number} |")
            head = ""
    return "\n".join(lines) + "\n"


def write(text: str) -> None:
    """Replace what stands between the marks in the page."""
    before, _, rest = PAGE.read_text().partition(FIRST)
    after = rest.partition(LAST)[2]
    PAGE.write_text(f"{before}{FIRST}\n{text}\n{LAST}{after}")


def main(seed: int = 0) -> None:
    commit = subprocess.check_output(["git", "describe", "--always", "--dirty"], cwd=ROOT, text=True).strip()
    counts = {}
    for tried, (run, num_cases) in FUZZERS.items():
        start = time.monotonic()
        counts[tried] = run(num_cases, seed)
        print(f"{num_cases} {tried} in {time.monotonic() - start:.0f} s", flush=True)
    write(table(counts, seed, commit))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
