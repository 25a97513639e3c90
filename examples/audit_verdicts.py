"""Audit somebody's verdicts: two judges of 180 answers against the experts, from Python and from the command line."""

import subprocess
import sys
from pathlib import Path

from medjudge import score

HERE = Path(__file__).parent
JUDGES = {name: HERE / f"{name}_judge.csv" for name in ("small", "large")}


def main(out: Path) -> None:
    """Prints each judge's agreement with its interval; writes the page from Python and by the command into `out`."""
    scores = score(JUDGES, gold=HERE / "gold.csv", labels=["no", "yes"])
    print(scores.results.read_as[1])
    table = scores.to_frame().set_index(["statistic", "judge"])
    for statistic in ("accuracy", "kappa"):
        for judge in JUDGES:
            row = table.loc[(statistic, judge)]
            print(f"{judge:>5} {statistic:8} {row.value:.3f} ({row.low:.3f} to {row.high:.3f}), n = {row.n}")
    print(scores.statements[0].split(". ")[0])
    print("page:", scores.report(out / "python", title="Two judges").relative_to(out))

    # The same by the command; `medjudge score --help` lists what it reads.
    files = [f"{name}={path}" for name, path in JUDGES.items()]
    command = [sys.executable, "-m", "medjudge", "score", *files, "--gold", str(HERE / "gold.csv")]
    command += ["--labels", "no,yes", "--out", str(out / "command")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print("page:", (out / "command" / "index.html").relative_to(out))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "audited"))
