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


def cold(link: Link, queries, cold: int, others: int, user: int = 0) -> Batch:
    return Batch(link, "cold", tuple(queries), entries(
        ("mount", cold), ("polars-http", cold), ("mount-user", user), ("local", min(cold, 5)), ("httpfs", others),
        ("rclone", others)))


def everything(link: Link, reps: int, warm: int, others: int) -> list[Batch]:
    """All rows at one link."""
    scans, points, rest = ("sum", "agg", "full"), ("ten", "range"), ("footer", "tags", "wide", "small")
    return [
        cold(link, scans, reps, others, min(reps, 3)),
        cold(link, points, reps, others),
        cold(link, rest, min(reps, 3), others),
        Batch(link, "known", points, entries(("mount", reps))),
        Batch(link, "session", ("session",), entries(("mount", min(reps, 3)), ("polars-http", min(reps, 3)))),
        Batch(link, "cold", ("seq",), raw(("mount", min(reps, 3)), ("mount-user", min(reps, 3)),
                                          ("curl", min(reps, 3)), ("rclone", min(others, 1)))),
        Batch(link, "cold", ("rand64k",), raw(("mount", min(reps, 3)), ("rclone", min(others, 1)))),
        Batch(link, "cold", ("many",), raw(("mount", 1))),
        Batch(link, "warm", ("sum", "agg", "full", "ten", "range"),
              entries(("mount", warm), ("mount-user", warm), ("local", warm))),
        Batch(link, "warm", ("seq", "mmap", "rand4k"), raw(("mount", warm), ("mount-user", warm), ("local", warm))),
        Batch(link, "restart", ("sum", "agg", "seq", "rand4k"), tuple(
            entry for side in ("mount", "mount-user")
            for entry in entries((side, min(warm, 5))) + raw((side, min(warm, 5))))),
    ]


def links(args: argparse.Namespace) -> list[Link]:
    rates, rtts = args.rate or [DECIDING.rate], args.rtt or [DECIDING.rtt]
    return [Link(rtt, rate, slow) for rate in rates for slow in args.slow_start for rtt in rtts]


def default_plan(reps: int, warm: int, others: int) -> list[Batch]:
    """What decides, in about half an hour."""
    plan = everything(DECIDING, reps, warm, others)
    for rtt in (20, 100):
        link = Link(rtt, 1000)
        plan.append(cold(link, ("sum", "agg", "full"), min(reps, 3), 0))
        plan.append(cold(link, ("ten", "range"), min(reps, 3), 0))
    slow = Link(50, 1000, True)
    plan.append(cold(slow, ("sum", "agg", "full", "ten", "range"), min(reps, 3), 0))
    plan.append(Batch(slow, "known", ("ten", "range"), entries(("mount", min(reps, 3)))))
    return plan


def full_plan(reps: int, warm: int, others: int) -> list[Batch]:
    """Every link. What does not depend on the link is measured at the deciding one."""
    plan = everything(DECIDING, reps, warm, reps)
    for rate in (1000, 100):
        for slow in (False, True):
            for rtt in (0, 20, 50, 100, 200):
                link = Link(rtt, rate, slow)
                if link != DECIDING and not (slow and rtt == 0):
                    count = reps if rate == 1000 else min(reps, 3)
                    plan += [batch for batch in everything(link, count, warm, others)
                             if batch.state in ("cold", "known", "session") and "many" not in batch.queries]
    return plan


def plan(args: argparse.Namespace) -> list[Batch]:
    if args.rtt or args.rate or args.slow_start != [False]:
        batches = [batch for link in links(args) for batch in everything(link, args.cold, args.warm, args.others)]
    else:
        choose = full_plan if args.full else default_plan
        batches = choose(args.cold, args.warm, args.others)
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
