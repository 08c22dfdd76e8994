//! F02: query engines give the same rows from the mount as from the original files.

use serde_json::Value;

use crate::harness::{Cli, Mounting, Server, TempTree, copy_tree, python, sample};

/// Each engine reads every row and column, one row's columns, a filter and a glob below `sys.argv[1]`, in JSON.
const NATIVE: &str = r#"
import sys, json, glob, duckdb, polars, pandas, pyarrow.parquet as pq, pyarrow.dataset as ds
root = sys.argv[1]; out = {}
plain = lambda rows: json.loads(json.dumps(rows, default=repr))
for name in ["users", "posts"]:
    file = f"{root}/data/{name}/data.parquet"
    rows = duckdb.sql(f"select * from '{file}'").fetchall()
    out[f"duckdb {name}"] = plain(rows)
    out[f"duckdb schema {name}"] = plain(duckdb.sql(f"describe select * from '{file}'").fetchall())
    out[f"polars {name}"] = plain(polars.read_parquet(file).rows())
    out[f"pyarrow {name}"] = plain(pq.read_table(file).to_pylist())
    out[f"pyarrow mapped {name}"] = plain(pq.read_table(file, memory_map=True).to_pylist())
    out[f"pandas {name}"] = plain(pandas.read_parquet(file).to_dict("records"))
    column = duckdb.sql(f"describe select * from '{file}'").fetchall()[0][0]
    out[f"polars scan {name}"] = plain(polars.scan_parquet(file).select(column).collect().rows())
every = f"{root}/data/*/data.parquet"
out["duckdb glob"] = plain(duckdb.sql(f"select * from read_parquet('{every}', union_by_name=true, filename=false) order by all").fetchall())
out["pyarrow glob"] = plain([pq.read_table(file).num_rows for file in sorted(glob.glob(every))])
print(json.dumps(out))
"#;

#[test]
fn f02_the_sample_database_gives_the_same_rows() {
    let tree = TempTree::new();
    copy_tree(&sample("native"), tree.path());
    let server = Server::start();
    Cli::owner(&server).push(tree.path(), &["--slug", "d"]).expect(0);
    let mount = Mounting::owner(&server, "alice/d").mount();
    assert_same(&python(NATIVE, &[&mount.path()]), &python(NATIVE, &[tree.path()]));
    assert!(mount.stats().bytes_read > 0);
    mount.unmount();
}

/// Writes files of many row groups below `sys.argv[1]`, one of them partitioned.
const WRITE: &str = r#"
import sys, json, duckdb
root = sys.argv[1]
duckdb.sql("set threads = 2")
rows = """select i as id, i % 97 as bucket, hash(i) as h, 'name ' || hash(i * 3) as name, i / 7.0 as ratio,
  case when i % 5 = 0 then null else date '2020-01-01' + (i % 1000)::int end as day,
  [i % 3, i % 7] as list, {'a': i, 'b': i::varchar} as nested"""
duckdb.sql(f"copy ({rows} from range(200000) t(i)) to '{root}/big.parquet' (row_group_size 8192)")
duckdb.sql(f"copy ({rows}, i % 4 as part from range(40000) t(i)) to '{root}/parts' (format parquet, partition_by (part), row_group_size 2048)")
print(json.dumps(duckdb.sql(f"select count(distinct row_group_id) from parquet_metadata('{root}/big.parquet')").fetchall()[0][0]))
"#;

const QUERIES: &str = r#"
import sys, json, duckdb, polars as pl, pandas, pyarrow.dataset as ds, pyarrow.parquet as pq, pyarrow.compute as pc
root = sys.argv[1]; big = f"{root}/big.parquet"; out = {}
duckdb.sql("set threads = 2")
plain = lambda rows: json.loads(json.dumps(rows, default=repr))
sql = lambda text: plain(duckdb.sql(text).fetchall())
out["duckdb all"] = sql(f"select count(*), bit_xor(hash(t)), min(id), max(id) from '{big}' t")
out["duckdb projected and filtered"] = sql(f"select id, name, day from '{big}' where id between 77770 and 77790 or id = 199999 order by id")
out["duckdb groups"] = sql(f"select bucket, count(*), sum(id), max(name), count(day) from '{big}' group by bucket order by bucket")
out["duckdb parts"] = sql(f"select part, count(*), sum(id), bit_xor(hash(name)) from read_parquet('{root}/parts/*/*.parquet', hive_partitioning=true) group by part order by part")
out["duckdb one part"] = sql(f"select count(*), sum(id) from read_parquet('{root}/parts/**/*.parquet', hive_partitioning=true) where part = 3 and id < 1000")
out["polars scan"] = plain(pl.scan_parquet(big).filter(pl.col("id").is_between(150000, 150020)).select("id", "name", "list").sort("id").collect().rows())
out["polars groups"] = plain(pl.scan_parquet(big).group_by("bucket").agg(pl.col("id").sum(), pl.col("name").max()).sort("bucket").collect().rows())
out["polars glob"] = plain(pl.scan_parquet(f"{root}/parts/*/*.parquet").select(pl.len(), pl.col("id").sum()).collect().rows())
out["pyarrow all"] = plain(pq.read_table(big).slice(123456, 50).to_pylist())
out["pyarrow group"] = plain(pq.ParquetFile(big).read_row_group(7, columns=["id", "nested"]).slice(0, 50).to_pylist())
out["pyarrow dataset"] = plain(ds.dataset(f"{root}/parts", partitioning="hive").to_table(columns=["id", "part"], filter=(pc.field("part") == 2) & (pc.field("id") < 500)).sort_by("id").to_pylist())
frame = pandas.read_parquet(big, columns=["id", "ratio", "h"])
out["pandas"] = plain([len(frame), int(frame.id.sum()), float(frame.ratio.sum()), int(frame.h.astype("uint64").sum())])
print(json.dumps(out))
"#;

#[test]
fn f02_files_of_many_row_groups_give_the_same_rows() {
    let tree = TempTree::new();
    assert!(python(WRITE, &[tree.path()]).as_u64().unwrap() > 10, "there are many row groups");
    let server = Server::start();
    Cli::owner(&server).push(tree.path(), &["--slug", "d"]).expect(0);
    let expected = python(QUERIES, &[tree.path()]);
    assert_eq!(expected["duckdb all"][0][0], 200_000);
    let mounting = Mounting::owner(&server, "alice/d");
    let mount = mounting.mount();
    assert_same(&python(QUERIES, &[&mount.path()]), &expected);
    mount.unmount();
    let mount = mounting.mount();
    assert_same(&python(QUERIES, &[&mount.path()]), &expected);
    assert_eq!(mount.stats().bytes_fetched, 0, "the second run has everything");
}

#[track_caller]
fn assert_same(mounted: &Value, original: &Value) {
    let original = original.as_object().unwrap();
    assert!(mounted.as_object().unwrap().keys().eq(original.keys()));
    for (what, rows) in original {
        assert!(!rows.as_array().unwrap().is_empty(), "{what} has rows");
        assert!(mounted[what] == *rows, "{what}:\n{}\n{rows}", mounted[what]);
    }
}
