#!/usr/bin/env python3
"""Write the demo's dataset: an orders/lineitem pair in the manner of TPC-H.

    dataset.py DIR [--rows N]

writes DIR/data/orders/data.parquet and DIR/data/lineitem/data.parquet with DuckDB.
N is the least number of line items (default 2,000,000); there are about four to an order.

Every value is a hash of its row and column, so the same N gives the same rows each time.
Orders come in the order of their dates, as a growing table does: a query over a few months
needs a few row groups only. Money is DECIMAL, never floating point, so sums are exact.
"""

import argparse
import pathlib
import signal
import sys

import duckdb

ROWS = 2_000_000
ROW_GROUP = 122_880
# Lines per order cycle through 1..7, so seven orders have exactly 28 lines.
ORDERS_PER_CYCLE, LINES_PER_CYCLE = 7, 28

SETUP = """
-- mix(row, column): 63 bits, the same on every run. Hashing twice makes two columns of a row unrelated.
CREATE MACRO mix(row, col) AS (hash(xor(hash(row), hash(col))) >> 1)::BIGINT;
-- pick(row, column, n): a number in 0..n-1.
CREATE MACRO pick(row, col, n) AS mix(row, col) % n;
CREATE MACRO word(number, words) AS words[1 + number % len(words)];
CREATE MACRO sentence(bits) AS
    word(bits, ['quickly', 'slowly', 'carefully', 'furiously', 'blithely', 'never', 'daringly', 'finally'])
    || ' ' || word(bits >> 10, ['regular', 'special', 'final', 'express', 'pending', 'silent', 'ironic', 'bold'])
    || ' ' || word(bits >> 20, ['packages', 'deposits', 'accounts', 'requests', 'theodolites', 'pinto beans',
                                'foxes', 'instructions', 'platelets', 'asymptotes'])
    || ' ' || word(bits >> 30, ['sleep', 'haggle', 'nag', 'wake', 'cajole', 'boost', 'detect', 'integrate'])
    || ' no. ' || (bits >> 40) % 100000;
"""

ORDERS = """
CREATE TABLE orders AS
SELECT k AS o_orderkey,
       1 + pick(k, 'customer', greatest($orders // 10, 1)) AS o_custkey,
       -- 2406 days from 1992-01-01 to 1998-08-02, in the order of the keys.
       DATE '1992-01-01' + ((k - 1) * 2406 // $orders)::INTEGER AS o_orderdate,
       word(mix(k, 'priority'), ['1-URGENT', '2-HIGH', '3-MEDIUM', '4-NOT SPECIFIED', '5-LOW']) AS o_orderpriority,
       'Clerk#' || lpad((1 + pick(k, 'clerk', 1000))::VARCHAR, 9, '0') AS o_clerk,
       0::INTEGER AS o_shippriority,
       sentence(mix(k, 'comment')) AS o_comment,
       -- 5 is prime to 7: each run of seven orders has every count from 1 to 7 once.
       (1 + (k * 5) % 7)::INTEGER AS lines
FROM range(1, $orders + 1) AS numbers(k)
"""

LINEITEM = """
CREATE TABLE lineitem AS
WITH lines AS (
    SELECT o_orderkey, o_orderdate, unnest(range(1, lines + 1)) AS line FROM orders
), priced AS (
    SELECT *, o_orderkey * 8 + line AS id,
           1 + pick(id, 'quantity', 50) AS quantity,
           1 + pick(id, 'part', greatest($orders // 8, 1)) AS part,
           o_orderdate + (1 + pick(id, 'ship', 121))::INTEGER AS shipdate
    FROM lines
)
SELECT o_orderkey AS l_orderkey,
       part AS l_partkey,
       1 + pick(id, 'supplier', greatest($orders // 150, 1)) AS l_suppkey,
       line::INTEGER AS l_linenumber,
       quantity::DECIMAL(15, 2) AS l_quantity,
       (quantity * (90000 + part // 10 % 20001 + 100 * (part % 1000)) / 100)::DECIMAL(15, 2) AS l_extendedprice,
       (pick(id, 'discount', 11) / 100)::DECIMAL(15, 2) AS l_discount,
       (pick(id, 'tax', 9) / 100)::DECIMAL(15, 2) AS l_tax,
       CASE WHEN shipdate > DATE '1995-06-17' THEN 'N'
            WHEN pick(id, 'return', 2) = 0 THEN 'R' ELSE 'A' END AS l_returnflag,
       CASE WHEN shipdate > DATE '1995-06-17' THEN 'O' ELSE 'F' END AS l_linestatus,
       shipdate AS l_shipdate,
       o_orderdate + (30 + pick(id, 'commit', 61))::INTEGER AS l_commitdate,
       shipdate + (1 + pick(id, 'receipt', 30))::INTEGER AS l_receiptdate,
       word(mix(id, 'instruct'), ['DELIVER IN PERSON', 'COLLECT COD', 'NONE', 'TAKE BACK RETURN']) AS l_shipinstruct,
       word(mix(id, 'mode'), ['REG AIR', 'AIR', 'RAIL', 'SHIP', 'TRUCK', 'MAIL', 'FOB']) AS l_shipmode,
       sentence(mix(id, 'comment')) AS l_comment
FROM priced
"""

COPY_LINEITEM = "COPY (SELECT * FROM lineitem ORDER BY l_orderkey, l_linenumber) TO"
COPY_ORDERS = """
COPY (
    SELECT o_orderkey, o_custkey, o_orderstatus, o_totalprice, o_orderdate, o_orderpriority, o_clerk,
           o_shippriority, o_comment
    FROM orders JOIN (
        SELECT l_orderkey,
               CASE WHEN min(l_linestatus) = max(l_linestatus) THEN min(l_linestatus) ELSE 'P' END AS o_orderstatus,
               sum(round(l_extendedprice * (1 - l_discount) * (1 + l_tax), 2))::DECIMAL(15, 2) AS o_totalprice
        FROM lineitem GROUP BY l_orderkey
    ) ON l_orderkey = o_orderkey
    ORDER BY o_orderkey
) TO"""


def write(folder: pathlib.Path, rows: int) -> None:
    orders = ORDERS_PER_CYCLE * -(-rows // LINES_PER_CYCLE)
    con = duckdb.connect()
    con.execute(SETUP).fetchall()
    con.execute(ORDERS, {"orders": orders}).fetchall()
    con.execute(LINEITEM, {"orders": orders}).fetchall()
    for table, copy in (("orders", COPY_ORDERS), ("lineitem", COPY_LINEITEM)):
        path = folder / "data" / table / "data.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        quoted = "'" + str(path).replace("'", "''") + "'"
        con.execute(f"{copy} {quoted} (FORMAT parquet, COMPRESSION snappy, ROW_GROUP_SIZE {ROW_GROUP})").fetchall()
        count, groups = con.execute(
            f"SELECT sum(num_rows), sum(num_row_groups) FROM parquet_file_metadata({quoted})").fetchone()
        if table == "lineitem" and count < rows:
            sys.exit(f"wrote {count} line items, {rows} were asked for")
        print(f"data/{table}/data.parquet: {count:,} rows in {groups} row groups, {path.stat().st_size / 2**20:.1f} MiB")


def main() -> None:
    # Ctrl-C ends this without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, metavar="DIR")
    parser.add_argument("--rows", type=int, default=ROWS, metavar="N")
    args = parser.parse_args()
    if args.rows < 1:
        parser.error("--rows must be at least 1")
    write(args.folder, args.rows)


if __name__ == "__main__":
    main()
