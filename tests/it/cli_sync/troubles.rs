//! A sync that is killed, or whose remote fails, at every step: the next one finishes the work, nothing is lost, and what
//! was published is published once.

use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use parquedb_mount::remote::RemoteOptions;

use super::{Pair, kept};
use crate::harness::{Cli, Random, Reply, Responder, answer, finish, number, text};

/// Changes of every kind on both sides, and one conflict that is decided for what is here.
fn scene() -> Pair {
    let pair = Pair::with(&[
        ("both", "base"),
        ("here", "1"),
        ("there", "1"),
        ("gone-here", "1"),
        ("gone-there", "1"),
        ("same", "1"),
    ]);
    pair.a.write(&[("both", "theirs"), ("there", "2 there"), ("new-there", "new there")]);
    pair.a.remove("gone-there");
    pair.cli.sync(pair.a.path(), &[]).expect(0);
    pair.b.write(&[("both", "mine"), ("here", "2 here"), ("new-here", "new here")]);
    pair.b.remove("gone-here");
    pair
}

/// Runs it again, with nothing in its way, and finds that all is as it should be: once.
fn finishes(pair: &Pair, what: &str) {
    let synced = pair.cli.sync(pair.b.path(), &[]);
    assert_eq!(synced.code, 0, "{what}: {synced:?}");
    let expected = [
        ("both", "mine"),
        ("here", "2 here"),
        ("new-here", "new here"),
        ("new-there", "new there"),
        ("same", "1"),
        ("there", "2 there"),
    ];
    pair.cli.sync(pair.a.path(), &[]).expect(0);
    for tree in [&pair.a, &pair.b] {
        assert_eq!(tree.names(), expected.map(|(name, _)| name), "{what}");
        for (name, text) in expected {
            assert_eq!(tree.read(name).as_deref(), Some(text), "{what}: {name}");
        }
    }
    assert_eq!(pair.revision(), 3, "{what}: published once");
    let loser = ("both.remote.conflict".to_owned(), "theirs".to_owned());
    assert!(kept(&pair.b).contains(&loser), "{what}: {:?}", kept(&pair.b));
    let staged = std::fs::read_dir(pair.b.at(".parquedb/incoming")).unwrap().count();
    assert_eq!(staged, 0, "{what}: nothing is left lying about");
}

/// When a process is killed that has sent a request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Moment {
    Before,
    Done,
    Answered,
}

/// Kills a sync at its request of that number. Says whether it came that far.
fn killed_at(request: usize, moment: Moment, chance: &Mutex<Random>) -> bool {
    let pair = scene();
    let (address, asked) = (pair.server.address.clone(), AtomicUsize::new(0));
    let child: Arc<Mutex<Option<Child>>> = Arc::default();
    let fired = Arc::new(AtomicBool::new(false));
    let (victim, hit) = (child.clone(), fired.clone());
    let delay = Duration::from_micros(chance.lock().unwrap().below(4000));
    let kill = move || {
        hit.store(true, Ordering::SeqCst);
        if let Some(child) = victim.lock().unwrap().as_mut() {
            let _ = child.kill();
        }
    };
    let proxy = Responder::start(move |incoming| {
        let is_it = asked.fetch_add(1, Ordering::SeqCst) == request;
        if is_it && moment == Moment::Before {
            kill();
            return Reply::HangUp;
        }
        let response = incoming.forward(&address);
        if is_it && moment == Moment::Done {
            kill();
            return Reply::HangUp;
        }
        if is_it {
            let kill = kill.clone();
            thread::spawn(move || {
                thread::sleep(delay);
                kill();
            });
        }
        response.into()
    });
    let cli = Cli::at(&proxy.url()).token(&pair.server.token);
    {
        // It is there to be killed before its first request is answered.
        let mut slot = child.lock().unwrap();
        let mut command = cli.command(&["sync", "--directory", text(pair.b.path())]);
        *slot =
            Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }
    loop {
        let mut slot = child.lock().unwrap();
        if slot.as_mut().unwrap().try_wait().unwrap().is_some() {
            break;
        }
        drop(slot);
        thread::sleep(Duration::from_millis(2));
    }
    let child = child.lock().unwrap().take();
    let _ = finish(&mut child.unwrap());
    let came = fired.load(Ordering::SeqCst);
    finishes(&pair, &format!("killed at request {request}, {moment:?} after {delay:?}"));
    came
}

#[test]
fn a_sync_that_is_killed_at_any_step_is_finished_by_the_next() {
    let seed = number("PARQUEDB_TEST_SEED", 7);
    let (chance, killed) = (Mutex::new(Random(seed)), AtomicU64::new(0));
    for moment in [Moment::Before, Moment::Done, Moment::Answered] {
        let mut requests = 0;
        while killed_at(requests, moment, &chance) {
            requests += 1;
            killed.fetch_add(1, Ordering::SeqCst);
        }
        assert!(requests >= 6, "{moment:?}: a sync has more steps than {requests}");
    }
    println!("seed {seed}: {} kills", killed.load(Ordering::SeqCst));
}

#[test]
fn a_sync_that_is_killed_at_any_moment_is_finished_by_the_next() {
    let kills = number("PARQUEDB_TEST_KILLS", 40);
    let mut chance = Random(number("PARQUEDB_TEST_SEED", 7));
    let mut at_work = 0;
    // About how long a whole one takes here and now: how busy the machine is changes.
    let mut whole = 20_000;
    for n in 0..kills {
        let pair = scene();
        let delay = Duration::from_micros(chance.below(whole));
        let mut command = pair.cli.command(&["sync", "--directory", text(pair.b.path())]);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(delay);
        let works = child.try_wait().unwrap().is_none();
        at_work += u64::from(works);
        whole = if works { whole * 11 / 10 } else { whole * 9 / 10 };
        let _ = child.kill();
        let _ = finish(&mut child);
        finishes(&pair, &format!("kill {n} after {delay:?}"));
    }
    println!("{kills} kills, {at_work} of a sync at work");
    assert!(at_work > kills / 4, "{at_work} of {kills} met a sync at work");
}

/// Syncs while one request is not answered. Says whether there was such a request.
fn with_stall(request: usize) -> bool {
    let pair = scene();
    let (address, asked) = (pair.server.address.clone(), AtomicUsize::new(0));
    let fired = Arc::new(AtomicBool::new(false));
    let hit = fired.clone();
    let proxy = Responder::start(move |incoming| {
        if asked.fetch_add(1, Ordering::SeqCst) == request {
            hit.store(true, Ordering::SeqCst);
            // Those that wait long for contents and commits are let go.
            thread::sleep(Duration::from_secs(3));
            return Reply::HangUp;
        }
        incoming.forward(&address).into()
    });
    let options =
        RemoteOptions { idle_timeout: Duration::from_millis(300), retries: 0, ..RemoteOptions::default() };
    let synced = super::by_library(&pair, &proxy.url(), &pair.b, &options, &());
    let stalled = fired.load(Ordering::SeqCst);
    assert!(synced.is_ok() || stalled, "{synced:?}");
    finishes(&pair, &format!("request {request} is not answered"));
    stalled
}

#[test]
fn f34_a_sync_whose_remote_does_not_answer_ends_and_the_next_finishes_it() {
    let mut requests = 0;
    while with_stall(requests) {
        requests += 1;
    }
    assert!(requests >= 6, "a sync has more steps than {requests}");
}

/// What goes wrong once.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    HangUp,
    LostReply,
    Unavailable,
    TooMany,
    Truncated,
    WrongLength,
    OtherTag,
}

const FAULTS: [Fault; 7] = [
    Fault::HangUp,
    Fault::LostReply,
    Fault::Unavailable,
    Fault::TooMany,
    Fault::Truncated,
    Fault::WrongLength,
    Fault::OtherTag,
];

/// Syncs while one request meets a fault. Says whether it did.
fn with_fault(request: usize, fault: Fault) -> bool {
    let pair = scene();
    let (address, asked) = (pair.server.address.clone(), AtomicUsize::new(0));
    let fired = Arc::new(AtomicBool::new(false));
    let hit = fired.clone();
    let proxy = Responder::start(move |incoming| {
        if asked.fetch_add(1, Ordering::SeqCst) != request {
            return incoming.forward(&address).into();
        }
        hit.store(true, Ordering::SeqCst);
        match fault {
            Fault::HangUp => Reply::HangUp,
            Fault::Unavailable => answer(503, &[], b"busy"),
            Fault::TooMany => answer(429, &[("Retry-After", "1")], b"slowly"),
            _ => {
                let mut response = incoming.forward(&address);
                match fault {
                    Fault::LostReply => return Reply::HangUp,
                    Fault::Truncated => drop(response.body.pop()),
                    Fault::WrongLength => response.body.push(b' '),
                    _ => {}
                }
                for (name, value) in &mut response.headers {
                    if fault == Fault::OtherTag && name.eq_ignore_ascii_case("etag") {
                        *value = format!("\"{}\"", "0".repeat(64));
                    }
                }
                response.into()
            }
        }
    });
    let cli = Cli::at(&proxy.url()).token(&pair.server.token);
    let synced = cli.sync(pair.b.path(), &["--retries", "1"]);
    // Passing trouble is ridden out; what came wrong is refused, and nothing of it is used.
    let what = format!("request {request}, {fault:?}");
    let expected: &[i32] = match fault {
        Fault::HangUp | Fault::LostReply | Fault::Unavailable | Fault::TooMany => &[0],
        Fault::Truncated | Fault::WrongLength | Fault::OtherTag => &[0, 6, 7, 8],
    };
    assert!(expected.contains(&synced.code), "{what}: {synced:?}");
    finishes(&pair, &what);
    fired.load(Ordering::SeqCst)
}

#[test]
fn f34_a_sync_whose_remote_fails_once_at_any_step_ends_well() {
    let mut fired = 0;
    thread::scope(|scope| {
        let runs = FAULTS.map(|fault| {
            scope.spawn(move || {
                let mut requests = 0;
                while with_fault(requests, fault) {
                    requests += 1;
                }
                assert!(requests >= 6, "{fault:?}: a sync has more steps than {requests}");
                requests
            })
        });
        fired = runs.into_iter().map(|run| run.join().unwrap()).sum();
    });
    println!("{fired} faults");
}

#[test]
fn f34_a_remote_that_asks_for_time_gets_it_and_one_that_stays_away_is_told() {
    let pair = scene();
    let away = Cli::at("http://127.0.0.1:1").token(&pair.server.token);
    let started = std::time::Instant::now();
    let failed = away.sync(pair.b.path(), &["--retries", "1"]).expect(6);
    assert!(failed.stdout.contains("trying again in 1 s"), "{failed:?}");
    assert!(started.elapsed() >= Duration::from_millis(750));
    finishes(&pair, "unreachable");
    // A busy remote says when to come back.
    let pair = scene();
    let (address, first) = (pair.server.address.clone(), AtomicBool::new(true));
    let proxy = Responder::start(move |incoming| {
        if first.swap(false, Ordering::SeqCst) {
            return answer(429, &[("Retry-After", "3")], b"slowly");
        }
        incoming.forward(&address).into()
    });
    let started = std::time::Instant::now();
    Cli::at(&proxy.url()).token(&pair.server.token).sync(pair.b.path(), &[]).expect(0);
    assert!(started.elapsed() >= Duration::from_secs(3));
    finishes(&pair, "asked to wait");
}

#[test]
fn rule_15_a_remote_that_fails_is_never_taken_for_empty() {
    for status in [401, 403, 404, 410, 500, 503] {
        let pair = scene();
        let before = crate::harness::data_files(pair.b.path());
        let proxy = Responder::start(move |_| answer(status, &[], b"{\"error\":\"no\"}"));
        let cli = Cli::at(&proxy.url()).token(&pair.server.token);
        let failed = cli.sync(pair.b.path(), &[]);
        assert!([4, 5, 6].contains(&failed.code), "{status}: {failed:?}");
        assert_eq!(crate::harness::data_files(pair.b.path()), before, "{status}");
        finishes(&pair, &format!("HTTP {status}"));
    }
    // Nor is a directory that cannot be read.
    let pair = Pair::with(&[("d/f", "1"), ("g", "1")]);
    let file = pair.b.at("d");
    std::fs::rename(&file, pair.b.at("../aside")).unwrap();
    std::os::unix::fs::symlink("d", &file).unwrap();
    pair.cli.sync(pair.b.path(), &[]).expect(0);
    assert_eq!(pair.server.paths("x"), ["d/f", "g"], "what is behind a link is not deleted");
}

#[test]
fn rule_3_a_sync_whose_commit_landed_unheard_settles_it_first() {
    let pair = scene();
    let address = pair.server.address.clone();
    let proxy = Responder::start(move |incoming| {
        let response = incoming.forward(&address);
        if incoming.target.starts_with("/api/sync/commit/") { Reply::HangUp } else { response.into() }
    });
    Cli::at(&proxy.url()).token(&pair.server.token).sync(pair.b.path(), &[]).expect(6);
    assert_eq!(pair.revision(), 3, "it landed");
    // Meanwhile somebody goes on from there.
    pair.a.write(&[("new-there", "newer")]);
    pair.cli.sync(pair.a.path(), &[]).expect(0);
    pair.b.write(&[("here", "3 here")]);
    let synced = pair.cli.sync(pair.b.path(), &["--strategy", "manual", "--json"]).expect(0).json();
    assert_eq!(synced["uploaded"], serde_json::json!(["here"]), "{synced}");
    assert_eq!(pair.b.read("new-there").as_deref(), Some("newer"));
    assert_eq!(pair.b.read("gone-there"), None);
}

#[test]
fn rule_4_a_remote_that_was_rolled_back_halts_a_sync() {
    let mut pair = Pair::with(&[("f", "1")]);
    let backup = crate::harness::TempTree::new();
    crate::harness::copy_tree(&pair.server.store(), &backup.at("store"));
    pair.a.write(&[("f", "2"), ("new", "1")]);
    pair.cli.sync(pair.a.path(), &[]).expect(0);
    pair.cli.sync(pair.b.path(), &[]).expect(0);
    pair.server.kill();
    std::fs::remove_dir_all(pair.server.store()).unwrap();
    crate::harness::copy_tree(&backup.at("store"), &pair.server.store());
    pair.server.crash_and_restart();
    let before = crate::harness::data_files(pair.b.path());
    let halted = pair.cli.sync(pair.b.path(), &[]).expect(3);
    assert!(halted.stderr.contains("rolled back"), "{halted:?}");
    assert_eq!(crate::harness::data_files(pair.b.path()), before);
    // And where it has gone on otherwise from there.
    let other = crate::harness::TempTree::new();
    pair.cli.pull("alice/x", other.path(), &[]).expect(0);
    for n in 0..3 {
        other.write(&[("f", &format!("otherwise {n}"))]);
        pair.cli.sync(other.path(), &[]).expect(0);
    }
    let halted = pair.cli.sync(pair.b.path(), &[]).expect(3);
    assert!(halted.stderr.contains("rolled back"), "{halted:?}");
    assert_eq!(crate::harness::data_files(pair.b.path()), before);
}

#[test]
fn rule_3_what_landed_unheard_is_not_forgotten_by_the_next_commit() {
    let pair = Pair::with(&[("f", "1")]);
    pair.b.write(&[("new", "1")]);
    let address = pair.server.address.clone();
    let landed = Arc::new(AtomicBool::new(false));
    let first = landed.clone();
    let proxy = Responder::start(move |incoming| {
        if !incoming.target.starts_with("/api/sync/commit/") {
            return incoming.forward(&address).into();
        }
        // The first one lands; no later one does.
        if !first.swap(true, Ordering::SeqCst) {
            let _ = incoming.forward(&address);
        }
        Reply::HangUp
    });
    let cli = Cli::at(&proxy.url()).token(&pair.server.token);
    cli.sync(pair.b.path(), &[]).expect(6);
    assert_eq!(pair.server.paths("x"), ["f", "new"], "it landed");
    pair.b.remove("new");
    cli.sync(pair.b.path(), &[]).expect(6);
    pair.cli.sync(pair.b.path(), &[]).expect(0);
    assert_eq!((pair.b.read("new"), pair.published("new")), (None, None), "it does not come back");
}

#[test]
fn rule_3_what_landed_unheard_is_not_forgotten_by_a_decision() {
    let pair = Pair::with(&[("f", "1")]);
    pair.change_on_both_sides("f");
    pair.b.write(&[("new", "1")]);
    let address = pair.server.address.clone();
    let proxy = Responder::start(move |incoming| {
        let response = incoming.forward(&address);
        if incoming.target.starts_with("/api/sync/commit/") { Reply::HangUp } else { response.into() }
    });
    let cli = Cli::at(&proxy.url()).token(&pair.server.token);
    cli.sync(pair.b.path(), &["--strategy", "manual"]).expect(6);
    pair.cli.resolve(pair.b.path(), "f", &["--local"]).expect(0);
    pair.b.remove("new");
    pair.cli.sync(pair.b.path(), &[]).expect(0);
    assert_eq!((pair.b.read("new"), pair.published("new")), (None, None), "it does not come back");
    assert_eq!(pair.published("f").as_deref(), Some("here"));
}
