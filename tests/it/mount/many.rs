//! F01, F45: a database of a hundred thousand files costs one request, and every one of them is there.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Instant;

use super::errno;
use crate::harness::{Mounting, Server, noise, put_entry, run_to_end};

const FILES: usize = 100_000;
/// So many of them lie in one directory.
const FLAT: usize = 40_000;

#[test]
fn f01_a_hundred_thousand_files_are_listed_by_one_request() {
    let server = Server::start();
    let id = server.register("d", "public");
    let contents: Vec<Vec<u8>> = (0..5).map(|n| noise(n as u64 + 1, 1000 * n + 10)).collect();
    contents.iter().for_each(|content| server.upload(&id, "x", content));
    let path = |n: usize| match n {
        n if n < FLAT => format!("flat/file number {n:06}.parquet"),
        n => format!("deep/year={}/month={}/{n}.parquet", n % 60, n % 12),
    };
    let put: Vec<_> = (0..FILES).map(|n| put_entry(&path(n), &contents[n % 5])).collect();
    server.commit(&id, "commit-1", 0, &put, &[]).expect(200);

    let began = Instant::now();
    let mount = Mounting::at(&server.url(), "alice/d").mount();
    let mounted = began.elapsed();
    for _ in 0..2 {
        let began = Instant::now();
        let counted =
            run_to_end(Command::new("sh").args(["-c", "find \"$0\" -type f | wc -l"]).arg(mount.path()), b"");
        assert_eq!(counted.stdout.trim(), FILES.to_string());
        println!("{FILES} files: mounted in {mounted:.2?}, found in {:.2?}", began.elapsed());
    }
    let mut listed: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(mount.at("flat")).unwrap() {
        listed.push(entry.unwrap().file_name().into_string().unwrap());
    }
    assert_eq!(listed.len(), FLAT, "none is listed twice");
    assert!(listed.iter().collect::<BTreeSet<_>>().len() == FLAT, "and none is left out");
    assert_eq!(mount.stats().requests, 1, "the manifest tells all names and attributes");

    for n in [0, 1, FLAT - 1, FLAT, FILES / 2, FILES - 1] {
        assert!(mount.read(&path(n)).unwrap() == contents[n % 5], "{}", path(n));
        assert_eq!(std::fs::metadata(mount.at(&path(n))).unwrap().len(), contents[n % 5].len() as u64);
    }
    assert_eq!(errno(mount.read(&path(FILES))), Some(libc::ENOENT));
    assert!(mount.stats().requests <= 1 + 5, "equal contents are fetched once");
    mount.unmount();
}
