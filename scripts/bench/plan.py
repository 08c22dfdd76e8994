"""What is measured: batches, each a link, a state, queries and sides with the number of repetitions."""

import argparse
import dataclasses

from measure import RAW
from origin import Link
from queries import QUERIES

ENGINES = {"mount": ("duckdb", "polars"), "mount-user": ("duckdb", "polars"), "local": ("duckdb", "polars"),
           "rclone": ("duckdb", "polars"), "httpfs": ("httpfs",), "polars-http": ("polars",), "curl": ("curl",)}
SIDES = list(ENGINES)
STATES = ["cold", "again", "known", "session", "warm", "restart"]
DECIDING = Link(50, 1000)
SCANS, POINTS = ("sum", "agg", "full"), ("ten", "range")


@dataclasses.dataclass(frozen=True)
class Batch:
    """Queries measured on several sides, one after the other within each repetition."""

    link: Link
    state: str
    queries: tuple[str, ...]
    # (side, engine, repetitions)
    entries: tuple[tuple[str, str, int], ...]


def entries(*wanted: tuple[str, int]) -> tuple[tuple[str, str, int], ...]:
    return tuple((side, engine, count) for side, count in wanted for engine in ENGINES[side])


def raw(*wanted: tuple[str, int]) -> tuple[tuple[str, str, int], ...]:
    return tuple((side, "curl" if side == "curl" else "read", count) for side, count in wanted)


@dataclasses.dataclass(frozen=True)
class Reps:
    """How often: what decides, the rest of the cold states, warm states, httpfs and rclone."""

    cold: int
    rest: int
    warm: int
    others: int


def cold(link: Link, queries, count: int, user: int, others: int) -> Batch:
    return Batch(link, "cold", tuple(queries), entries(
        ("mount", count), ("polars-http", count), ("mount-user", user), ("local", min(count, 2)), ("httpfs", others),
        ("rclone", others)))


def everything(link: Link, reps: Reps) -> list[Batch]:
    """All rows at one link."""
    rest = reps.rest
    return [
        cold(link, SCANS, reps.cold, rest, reps.others),
        cold(link, POINTS, reps.cold, 0, reps.others),
        cold(link, ("footer", "tags", "wide", "small"), rest, 0, reps.others),
        Batch(link, "known", POINTS, entries(("mount", reps.cold))),
        Batch(link, "session", ("session",), entries(("mount", rest), ("polars-http", rest))),
        Batch(link, "cold", ("seq",),
              raw(("mount", rest), ("mount-user", rest), ("curl", rest), ("rclone", reps.others))),
        Batch(link, "cold", ("rand64k",), raw(("mount", rest), ("rclone", reps.others))),
        Batch(link, "cold", ("many",), raw(("mount", 1))),
        Batch(link, "warm", (*SCANS, "ten"),
              entries(("mount", reps.warm), ("mount-user", reps.warm), ("local", reps.warm))),
        Batch(link, "warm", ("seq", "mmap", "rand4k"),
              raw(("mount", reps.warm), ("mount-user", reps.warm), ("local", reps.warm))),
        # A restart for each measurement.
        Batch(link, "restart", ("sum", "agg", "seq", "rand4k"), tuple(
            entry for side in ("mount", "mount-user")
            for entry in entries((side, min(reps.warm, 5))) + raw((side, min(reps.warm, 5))))),
    ]


def links(args: argparse.Namespace) -> list[Link]:
    rates, rtts = args.rate or [DECIDING.rate], args.rtt or [DECIDING.rtt]
    return [Link(rtt, rate, slow) for rate in rates for slow in args.slow_start for rtt in rtts]


def default_plan(reps: Reps) -> list[Batch]:
    """What decides, in about 20 minutes."""
    plan = everything(DECIDING, reps)
    for link in (Link(20, 1000), Link(100, 1000), Link(50, 1000, True)):
        plan.append(cold(link, SCANS + POINTS, reps.rest, 0, 0))
        if link.slow_start:
            plan.append(Batch(link, "known", POINTS, entries(("mount", reps.rest))))
    return plan


def full_plan(reps: Reps) -> list[Batch]:
    """Every link. What does not depend on the link is measured at the deciding one."""
    plan = everything(DECIDING, reps)
    for rate in (1000, 100):
        for slow in (False, True):
            for rtt in (0, 20, 50, 100, 200):
                link = Link(rtt, rate, slow)
                if link != DECIDING and not (slow and rtt == 0):
                    plan += [batch for batch in everything(link, reps)
                             if batch.state in ("cold", "known", "session") and "many" not in batch.queries]
    return plan


def plan(args: argparse.Namespace) -> list[Batch]:
    rest = args.cold if args.full else min(args.cold, 3)
    reps = Reps(args.cold, rest, args.warm, args.others)
    if args.rtt or args.rate or args.slow_start != [False]:
        batches = [batch for link in links(args) for batch in everything(link, reps)]
    else:
        batches = full_plan(reps) if args.full else default_plan(reps)
    chosen = []
    for batch in batches:
        queries = tuple(query for query in batch.queries if not args.query or query in args.query)
        kept = tuple(entry for entry in batch.entries
                     if entry[2] > 0 and (not args.side or entry[0] in args.side)
                     and (not args.engine or entry[1] in args.engine or entry[1] in ("read", "curl")))
        wanted = not args.state or batch.state in args.state or (batch.state == "cold" and "again" in args.state)
        if queries and kept and wanted:
            chosen.append(dataclasses.replace(batch, queries=queries, entries=kept))
    return chosen


def names() -> list[str]:
    return [*QUERIES, "session", *RAW]
