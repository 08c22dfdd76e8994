"""Samples as lines of a table: medians, extremes, requests and bytes."""

import statistics
from collections import defaultdict

from measure import RAW, Bench, Sample
from queries import QUERIES


def median(samples: list[Sample], field: str = "seconds") -> float:
    return statistics.median(getattr(sample, field) for sample in samples)


def megabytes(count: float) -> str:
    return f"{count / 1e6:8.2f}" if count < 1e8 else f"{count / 1e6:8.0f}"


def title(query: str) -> str:
    if query == "session":
        return "session of seven queries"
    return RAW.get(query) or QUERIES[query].title


def lines(bench: Bench, samples: list[Sample]) -> list[str]:
    """A block for each query and state; every side a line."""
    groups: dict = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        groups[sample.query, sample.state][sample.side, sample.engine].append(sample)
    out = []
    for (query, state), sides in groups.items():
        link = samples[0].link
        needed = "" if query in ("session", "many") else (
            f"; needs {bench.needs(query) / 1e6:.2f} MB, floor {link.floor(bench.needs(query)):.3f} s")
        out.append(f"\n{title(query)}, {state} ({link}{needed if state in ('cold', 'again', 'known') else ''})")
        out.append(f"  {'side':<12}{'engine':<8}{'median s':>9}{'min':>9}{'max':>9}{'n':>4}{'requests':>10}{'MB':>9}")
        for (side, engine), rows in sides.items():
            wrong = "  WRONG ANSWER" if any(row.wrong for row in rows) else ""
            seconds = [row.seconds for row in rows]
            memory = f"  peak {max(row.memory['peak'] for row in rows) / 1e6:.0f} MB" if rows[0].memory else ""
            out.append(f"  {side:<12}{engine:<8}{median(rows):9.3f}{min(seconds):9.3f}{max(seconds):9.3f}{len(rows):4}"
                       f"{median(rows, 'requests'):10.0f} {megabytes(median(rows, 'bytes'))}{memory}{wrong}")
    return out
