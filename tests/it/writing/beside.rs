//! The same operations on a mount and on a disk of the machine's, while the cache is evicted: both, and a model in memory,
//! agree all along. The files begin as the remote's.

use std::time::Duration;

use super::model::{Likes, Model};
use super::{mounting, while_evicting};
use crate::harness::{Random, Server, noise, number, write_files};

const LIKES: Likes =
    Likes { write: 8, append: 3, set_len: 3, punch: 4, map: 6, copy: 6, save: 1, names: 3, dirs: 1 };
/// Operations between looks at everything.
const STRETCH: u64 = 40;

#[test]
fn f07_a_mount_and_a_disk_agree_whatever_is_done_to_them() {
    let seeds = number("PARQUEDB_TEST_BESIDE", 2);
    let first = number("PARQUEDB_TEST_SEED", u64::from(std::process::id()));
    for (seed, flag) in (first..first + seeds)
        .flat_map(|seed| ["--read-timeout=9", "--no-passthrough"].map(|flag| (seed, flag)))
    {
        let files: Vec<(String, Vec<u8>)> = (0..12)
            .map(|n| {
                (
                    format!("{}file{n}", if n % 2 == 0 { "" } else { "d0/" }),
                    noise(seed + n, 25_000 * n as usize),
                )
            })
            .collect();
        let server = Server::start();
        let id = server.register("d", "public");
        let churn = noise(seed, 4 << 20);
        let mut published: Vec<(String, &[u8])> =
            files.iter().map(|(name, bytes)| (format!("work/{name}"), &**bytes)).collect();
        published.push(("churn".into(), &churn));
        let published: Vec<(&str, &[u8])> = published.iter().map(|(name, bytes)| (&**name, *bytes)).collect();
        server.publish(&id, &published);
        let mounting =
            mounting(&server).args(&[flag, "--cache-size", "1MB"]).lasting(Duration::from_secs(600));
        let mount = mounting.mount();
        let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        write_files(disk.path(), files.clone());

        let mut chance = Random(seed);
        let mut model = Model::with(&files);
        let evicted = while_evicting(&mount, ("churn", &churn), || {
            for stretch in 0..number("PARQUEDB_TEST_STRETCHES", 12) {
                let mut history = Vec::new();
                for _ in 0..STRETCH {
                    let op = model.choose(&LIKES, &mut chance);
                    history.push(format!("{op:.120?}"));
                    let (here, there) = (op.run(&mount.at("work")), op.run(disk.path()));
                    assert!(here.is_ok() && there.is_ok(), "seed {seed}: {here:?}, {there:?}: {op:.200?}");
                    model.apply(&op);
                }
                for (side, dir) in [("the disk", disk.path()), ("the mount", &mount.at("work"))] {
                    if let Some(what) = model.differs(dir) {
                        panic!(
                            "seed {seed}, stretch {stretch}, {flag}, {side}: {what}\n{}",
                            history.join("\n")
                        );
                    }
                }
            }
        });
        println!("seed {seed}, {flag}: agreed; {} MB evicted", evicted >> 20);
        mount.unmount();
    }
}
