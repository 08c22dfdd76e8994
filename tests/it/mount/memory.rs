//! Issue #3: however many read at once, the daemon takes no more memory for it than `--memory` says, and every read
//! is answered, with the right bytes.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::relay::Relay;
use super::{assert_right, database_of, slice};
use crate::harness::{Mount, Mounting, Server, noise, until};

const READERS: usize = 64;
const MIB: usize = 1 << 20;
/// Of each file.
const SIZE: usize = 3 * MIB + 12_345;

/// The most memory a daemon ever had.
fn most_ever(mount: &Mount) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", mount.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<usize>().unwrap() << 10
}

fn database() -> (Server, Vec<(String, Vec<u8>)>) {
    let names: Vec<String> = (0..READERS).map(|n| format!("{n:02}.bin")).collect();
    let sizes: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), SIZE)).collect();
    database_of(&sizes)
}

/// What a reader asks for: one after the other, anywhere, or a mebibyte at a time as engines do.
fn reads_of(reader: usize) -> Vec<(u64, usize)> {
    let every = |step: usize| (0..SIZE).step_by(step).map(move |offset| (offset as u64, step));
    match reader % 3 {
        0 => every(128 << 10).collect(),
        1 => {
            let numbers = noise(1000 + reader as u64, 12 * 8);
            let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
            let anywhere = |n: u64| (n % SIZE as u64, 1 + (n >> 40) as usize % 300_000);
            numbers.chunks(8).map(number).map(anywhere).collect()
        }
        _ => every(MIB).collect::<Vec<_>>().into_iter().rev().collect(),
    }
}

/// Reads all files at once, each by a reader of its own, and says what that has taken.
fn read_all_at_once(mount: &Mount, files: &[(String, Vec<u8>)]) -> usize {
    let before = most_ever(mount);
    thread::scope(|scope| {
        for (reader, (name, bytes)) in files.iter().enumerate() {
            scope.spawn(move || {
                let file = File::open(mount.at(name)).unwrap();
                for (offset, length) in reads_of(reader) {
                    let expected = slice(bytes, offset, length);
                    let mut read = vec![0; expected.len()];
                    file.read_exact_at(&mut read, offset).unwrap_or_else(|error| {
                        panic!("{name}, {length} bytes from {offset} on: {error}\n{}", mount.log())
                    });
                    assert!(read == expected, "{name}, {length} bytes from {offset} on");
                }
            });
        }
    });
    most_ever(mount) - before
}

#[track_caller]
fn stays_within(budget: Option<usize>, relay: &Relay, files: &[(String, Vec<u8>)]) -> String {
    let mut mounting = Mounting::at(&relay.url(), "alice/d");
    if let Some(budget) = budget {
        mounting = mounting.args(&["--memory", &budget.to_string()]);
    }
    let budget = budget.unwrap_or(256 * MIB);
    let mount = mounting.mount();
    let began = Instant::now();
    let taken = read_all_at_once(&mount, files);
    let took = began.elapsed();
    // What was fetched ahead may still be coming.
    until(|| mount.stats().memory_in_use == 0);
    let stats = mount.stats();
    assert!(taken <= budget, "{taken} bytes, of which {} were handed out", stats.memory_most);
    assert!(stats.memory_most <= budget as u64);
    mount.unmount();
    format!(
        "of {} MiB {taken} bytes taken, {} handed out at most, {} waits, {took:.1?}",
        budget / MIB,
        stats.memory_most,
        stats.memory_waits
    )
}

#[test]
fn sixty_four_readers_stay_within_the_budget_on_a_fast_link() {
    let (server, files) = database();
    let relay = Relay::before(&server);
    for budget in [None, Some(64 * MIB), Some(32 * MIB)] {
        println!("{}", stays_within(budget, &relay, &files));
    }
}

#[test]
fn sixty_four_readers_stay_within_the_budget_on_a_slow_link() {
    let (server, files) = database();
    let relay = Relay::narrow(&server, 4_000_000);
    for budget in [None, Some(64 * MIB), Some(32 * MIB)] {
        println!("{}", stays_within(budget, &relay, &files));
    }
}

/// A cache that keeps nothing: every read holds its bytes from the first to the reply.
#[test]
fn readers_around_the_cache_stay_within_the_budget() {
    let (server, files) = database();
    let relay = Relay::before(&server);
    let budget = 32 * MIB;
    let mounting =
        Mounting::at(&relay.url(), "alice/d").args(&["--memory", "32MiB", "--cache-size", "100kB"]);
    let mount = mounting.mount();
    let taken = read_all_at_once(&mount, &files);
    println!("{taken} bytes taken");
    assert!(taken <= budget, "{taken} bytes");
    until(|| mount.stats().memory_in_use == 0);
    mount.unmount();
}

fn dd(mount: &Mount, name: &str) -> Child {
    let mut command = Command::new("dd");
    command.arg(format!("if={}", mount.at(name).display())).args(["of=/dev/null", "bs=1M"]);
    command.stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn who_dies_gives_its_share_back_and_holds_up_nobody_whose_bytes_are_here() {
    let (server, files) = database();
    let relay = Relay::before(&server);
    let mount =
        Mounting::at(&relay.url(), "alice/d").args(&["--memory", "32MiB", "--read-timeout", "60"]).mount();
    assert_right(&mount.path(), &files[..1]);

    relay.trickle(true);
    let mut readers: Vec<Child> = files[1..].iter().map(|(name, _)| dd(&mount, name)).collect();
    until(|| mount.stats().memory_waits > 0);
    let began = Instant::now();
    assert_right(&mount.path(), &files[..1]);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?} for what is cached", began.elapsed());
    assert!(mount.stats().memory_in_use > 0, "they still wait");

    for reader in &mut readers {
        reader.kill().unwrap();
        reader.wait().unwrap();
    }
    until(|| mount.stats().memory_in_use == 0);
    relay.trickle(false);
    assert_right(&mount.path(), &files[1..4]);
    mount.unmount();
}

#[test]
fn a_budget_that_is_too_small_is_refused() {
    let refused = Mounting::at("http://127.0.0.1:9", "alice/d").args(&["--memory", "31MiB"]).run().expect(2);
    assert!(refused.stderr.contains("at least 32MiB"), "{}", refused.stderr);
    let refused = Mounting::at("http://127.0.0.1:9", "alice/d").args(&["--memory", "much"]).run().expect(2);
    assert!(refused.stderr.contains("a size is a number and"), "{}", refused.stderr);
}
