"""The speed to reach, row by row: what was measured against it, and by how much it misses."""

import dataclasses

from measure import Bench, Sample
from origin import Link
from plan import POINTS, SCANS
from queries import QUERIES
from report import median



@dataclasses.dataclass(frozen=True)
class Verdict:
    """One comparison: `measured` is to be at most `limit`."""

    row: str
    against: str
    where: str
    measured: float
    limit: float
    unit: str = "s"
    # What nothing can beat, where the goal lies below it.
    floor: float = 0.0

    @property
    def holds(self) -> bool:
        return self.measured <= self.limit

    @property
    def text(self) -> str:
        if self.holds:
            return "OK"
        if self.limit < self.floor:
            return f"out of reach: the floor is {self.floor:.3f} {self.unit}"
        return f"misses by {(self.measured / self.limit - 1) * 100:.0f} %" if self.limit else "misses"


class Medians:
    """Medians by what was measured."""

    def __init__(self, samples: list[Sample]):
        self.rows: dict[tuple, list[Sample]] = {}
        for sample in samples:
            key = (sample.link, sample.state, sample.query, sample.side, sample.engine)
            self.rows.setdefault(key, []).append(sample)
        self.samples = samples

    def get(self, link: Link, state: str, query: str, side: str, engine: str, field: str = "seconds") -> float | None:
        rows = self.rows.get((link, state, query, side, engine))
        return median(rows, field) if rows else None

    def local(self, query: str, engine: str) -> float | None:
        """The original files' time: no link is in it, so all its samples count, but warm ones first."""
        for state in ("warm", "cold"):
            rows = [s for s in self.samples if (s.state, s.query, s.side, s.engine) == (state, query, "local", engine)]
            if rows:
                return median(rows)
        return None


def mounts(m: Medians, states: tuple, queries: tuple):
    """Every (link, state, query, side, engine) of ours that was measured."""
    for link, state, query, side, engine in m.rows:
        if side in ("mount", "mount-user") and state in states and query in queries:
            yield link, state, query, side, engine, median(m.rows[link, state, query, side, engine])


def cold_rows(bench: Bench, m: Medians) -> list[Verdict]:
    out = []
    for link, _, query, side, engine, ours in mounts(m, ("cold",), SCANS):
        where = f"{query}, {engine}, {side}; {link}"
        floor = link.floor(bench.needs(query))

        def add(against, limit, where=where, ours=ours, floor=floor):
            out.append(Verdict("cold scan", against, where, ours, limit, floor=floor))

        local = m.local(query, engine)
        if local is not None and not link.slow_start:
            add("1.10 x floor + local", 1.10 * floor + local)
        rivals = [("polars-http", "polars", 0.9 if link.slow_start else 1.02 if query == "full" else 1.0),
                  ("httpfs", "httpfs", 0.25), ("rclone", engine, 0.15)]
        for rival, rival_engine, factor in rivals:
            theirs = m.get(link, "cold", query, rival, rival_engine)
            if theirs is not None:
                add(f"{factor} x {rival}", factor * theirs)
    for link, state, query, side, engine, ours in mounts(m, ("cold", "known"), POINTS):
        theirs = m.get(link, "cold", query, "polars-http", "polars")
        if theirs is not None:
            factor, row = (0.8, "cold point") if state == "cold" else (0.55, "footer known")
            out.append(Verdict(row, f"{factor} x polars-http", f"{query}, {engine}, {side}; {link}", ours,
                               factor * theirs))
    return out


def session_rows(bench: Bench, m: Medians) -> list[Verdict]:
    out = []
    # One of the seven reads every column.
    whole = bench.needs("full") / 1e6
    for link, state, query, side, engine, ours in mounts(m, ("session",), ("session",)):
        for field, unit in (("seconds", "s"), ("bytes", "MB")):
            theirs = m.get(link, state, query, "polars-http", "polars", field)
            if theirs is not None:
                mine = ours if field == "seconds" else m.get(link, state, query, side, engine, field)
                scale = 1e6 if unit == "MB" else 1
                out.append(Verdict("session", f"0.5 x polars-http, {field}", f"{engine}, {side}; {link}",
                                   mine / scale, 0.5 * theirs / scale, unit, whole if unit == "MB" else 0.0))
    return out


def byte_rows(bench: Bench, m: Medians) -> list[Verdict]:
    out = []
    queries = (*SCANS, *POINTS, "footer", "tags", "wide", "small")
    for link, state, query, side, engine, _ in mounts(m, ("cold",), queries):
        where = f"{query}, {engine}, {side}; {link}"
        fetched = m.get(link, state, query, side, engine, "bytes")
        size = sum(path.stat().st_size for path in bench.database.glob(QUERIES[query].file))
        if query == "small":
            # Small files are fetched whole: that is one request instead of two, and cheaper.
            out.append(Verdict("bytes", "1.10 x the files", where, fetched / 1e6, 1.10 * size / 1e6, "MB"))
        else:
            out.append(Verdict("bytes", "1.10 x needed", where, fetched / 1e6, 1.10 * bench.needs(query) / 1e6, "MB"))
        if query == "wide":
            out.append(Verdict("bytes", "5 % of the file", where, fetched / 1e6, 0.05 * size / 1e6, "MB"))
        theirs = m.get(link, state, query, "polars-http", "polars", "requests")
        if theirs is not None:
            out.append(Verdict("requests", "polars-http's", where, m.get(link, state, query, side, engine, "requests"),
                               theirs, ""))
    return out


# How many times the local time is allowed: the goals give rates, so 1/rate.
WARM = {
    ("mount", "warm", "seq"): 1 / 0.95, ("mount", "warm", "mmap"): 1 / 0.95, ("mount", "warm", "rand4k"): 1 / 0.88,
    # "Indistinguishable" is taken as five hundredths, which is about what two runs of the same differ.
    ("mount", "warm", "engine"): 1.05,
    ("mount-user", "warm", "seq"): 2.0, ("mount-user", "warm", "rand4k"): 1 / 0.85,
    ("mount-user", "warm", "engine"): 1.10,
    ("mount", "restart", "seq"): 2.0, ("mount", "restart", "rand4k"): 1 / 0.85, ("mount", "restart", "engine"): 1.10,
    ("mount-user", "restart", "seq"): 2.0, ("mount-user", "restart", "rand4k"): 1 / 0.85,
    ("mount-user", "restart", "engine"): 1.10,
}


def warm_rows(m: Medians) -> list[Verdict]:
    out = []
    queries = (*SCANS, *POINTS, "seq", "mmap", "rand4k")
    for _, state, query, side, engine, ours in mounts(m, ("warm", "restart"), queries):
        factor = WARM.get((side, state, query if engine == "read" else "engine"))
        local = m.local(query, engine)
        if factor is not None and local is not None:
            out.append(Verdict(f"{state}, {'root' if side == 'mount' else 'plain user'}", f"{factor:.2f} x local",
                               f"{query}, {engine}", ours, factor * local))
    for link, _, _, side, _, ours in mounts(m, ("cold",), ("seq",)):
        theirs = m.get(link, "cold", "seq", "curl", "curl")
        if theirs is not None:
            out.append(Verdict("cold sequential", "curl / 0.95", f"{side}; {link}", ours, theirs / 0.95))
    return out


def verdicts(bench: Bench) -> list[Verdict]:
    m = Medians(bench.samples)
    return cold_rows(bench, m) + session_rows(bench, m) + byte_rows(bench, m) + warm_rows(m)


def table(rows: list[Verdict]) -> list[str]:
    """Every comparison, then one line for each kind with its worst case."""
    out = ["Every comparison with a goal", heading()]
    out += [line(row, row.where) for row in rows]
    out += ["", "Goals: how many of the comparisons hold, and the worst", heading()]
    kinds: dict[tuple[str, str], list[Verdict]] = {}
    for row in rows:
        kinds.setdefault((row.row, row.against), []).append(row)
    for kind in kinds.values():
        worst = max(kind, key=lambda row: row.measured / row.limit if row.limit else row.measured)
        held = sum(row.holds for row in kind)
        out.append(line(worst, f"{held} of {len(kind)} hold; {worst.where}"))
    out.append(f"{sum(row.holds for row in rows)} of {len(rows)} comparisons hold")
    return out


def heading() -> str:
    return f"{'row':<21}{'at most':<28}{'where':<62}{'measured':>12}{'goal':>12}{'ratio':>7}  verdict"


def line(row: Verdict, where: str) -> str:
    ratio = f"{row.measured / row.limit:7.2f}" if row.limit else "      -"
    return (f"{row.row:<21}{row.against:<28}{where:<62}{row.measured:9.3f} {row.unit:<2}{row.limit:9.3f} {row.unit:<2}"
            f"{ratio}  {row.text}")
