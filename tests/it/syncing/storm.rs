//! Mounts of one database in a storm: daemons are killed, one of them with its machine; networks are parted, lose requests and
//! answers; the server dies; a disk is full. When it is over, all show the same, nothing that was acknowledged is lost, and nothing
//! that was deleted has returned.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use super::{ctl, pending};
use crate::harness::{
    Cli, Forgetful, Mount, Mounting, Random, Reply, Responder, Server, Tearing, answer, bytes_of, get,
    number, sha256, text,
};

const PATHS: usize = 12;

/// What is between one mount and the server.
#[derive(Default)]
struct Weather {
    /// Of so many requests, one goes wrong; zero: none.
    one_in: AtomicU64,
    parted: AtomicBool,
    chance: AtomicU64,
    fired: AtomicU32,
}

impl Weather {
    fn proxy(self: &Arc<Self>, address: String) -> Responder {
        let weather = self.clone();
        Responder::start_forgetful(move |request| {
            let one_in = weather.one_in.load(Ordering::SeqCst);
            let mut chance = Random(weather.chance.fetch_add(1, Ordering::SeqCst));
            let goes_wrong = one_in > 0 && chance.below(one_in) == 0;
            if weather.parted.load(Ordering::SeqCst) || TcpStream::connect(&address).is_err() {
                return Reply::HangUp;
            }
            if !goes_wrong {
                return request.forward(&address).into();
            }
            weather.fired.fetch_add(1, Ordering::SeqCst);
            match chance.below(5) {
                0 => Reply::HangUp,
                1 => answer(503, &[("Retry-After", "1")], b"busy"),
                2 => {
                    thread::sleep(Duration::from_millis(300));
                    request.forward(&address).into()
                }
                3 => {
                    drop(request.forward(&address));
                    request.forward(&address).into()
                }
                _ => {
                    drop(request.forward(&address));
                    Reply::HangUp
                }
            }
        })
    }
}

struct Player {
    mounting: Mounting,
    _proxy: Responder,
    weather: Arc<Weather>,
    /// What its cache and its state lie on, if its machine can stop.
    disk: Option<Forgetful>,
    /// How often it has.
    boots: AtomicU32,
    mount: Mutex<Option<Mount>>,
    /// Nobody works while nothing is mounted, or he would beside the mount.
    mounted: RwLock<()>,
    /// What was acknowledged last, path by path, as far as nothing here has taken its place.
    wrote: Mutex<BTreeMap<String, String>>,
    done: AtomicU32,
    /// What was done, in order, and with which files: told when something is lost.
    diary: Mutex<Vec<String>>,
}

impl Player {
    fn new(server: &Server, strategy: &str, seed: u64, can_stop: bool, patience: Duration) -> Self {
        let weather = Arc::new(Weather { chance: AtomicU64::new(seed << 32), ..Weather::default() });
        let proxy = weather.proxy(server.address.clone());
        let mut mounting =
            Mounting::at(&proxy.url(), "alice/d").env("PARQUEDB_TOKEN", &server.token).args(&[
                "--poll=0.3",
                "--sync",
                "interval",
                "--sync-interval=1",
                "--last-sync=0",
                "--read-timeout=5",
                "--strategy",
                strategy,
            ]);
        mounting = mounting.lasting(patience);
        let mut disk = None;
        if can_stop {
            let place = mounting.beside().join("disk");
            fs::create_dir(&place).unwrap();
            disk = Some(Forgetful::mount(&place, Tearing::Random(seed)));
            mounting = mounting.cache_in(&place.join("cache")).state_in(&place.join("state"));
        }
        let mount = Mutex::new(Some(mounting.clone().env("PARQUEDB_TEST_BOOT", "boot-0").mount()));
        let (mounted, wrote) = (RwLock::default(), Mutex::default());
        let (boots, done) = (AtomicU32::new(0), AtomicU32::new(0));
        let diary = Mutex::default();
        Self { mounting, _proxy: proxy, weather, disk, boots, mount, mounted, wrote, done, diary }
    }

    /// One thing after the other, until the storm is over. What fails may have been done.
    fn work(&self, who: usize, mut chance: Random, over: &AtomicBool) {
        let root = self.mounting.path();
        for n in 0.. {
            if over.load(Ordering::SeqCst) {
                return;
            }
            thread::sleep(Duration::from_millis(chance.below(60)));
            let place = chance.index(PATHS);
            let path = if place < 3 { format!("d{place}/f") } else { format!("f{place}") };
            let text = format!("step {n} of {who}");
            let to = format!("moved-{who}-{n}");
            let what = chance.below(30);
            let mounted = self.mounted.read().unwrap();
            let done = match what {
                0 => fs::remove_file(root.join(&path)).and_then(|()| self.make_durable(&root)),
                1 => {
                    let renamed = fs::rename(root.join(&path), root.join(&to));
                    renamed.and_then(|()| self.make_durable(&root))
                }
                _ => self.write(&root, &path, &text, what < 10),
            };
            drop(mounted);
            self.note(format!("{n}: {what} {path} {to} {done:?}"));
            let mut wrote = self.wrote.lock().unwrap();
            let before = wrote.remove(&path);
            match (done, what) {
                (Ok(()), 0) => {}
                (Ok(()), 1) => drop(before.map(|text| wrote.insert(to, text))),
                (Ok(()), _) => drop(wrote.insert(path, text)),
                (Err(error), 0 | 1) if error.kind() == io::ErrorKind::NotFound => continue,
                (Err(_), _) => continue,
            }
            self.done.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Where the machine can stop, only what was synced is acknowledged.
    fn make_durable(&self, root: &Path) -> io::Result<()> {
        if self.disk.is_some() { File::open(root)?.sync_all() } else { Ok(()) }
    }

    fn write(&self, root: &Path, path: &str, text: &str, by_renaming: bool) -> io::Result<()> {
        if let Some((above, _)) = path.split_once('/') {
            fs::create_dir_all(root.join(above))?;
        }
        // A name that never travels.
        let at = if by_renaming { root.join("storm.token") } else { root.join(path) };
        let mut file = File::create(&at)?;
        file.write_all(text.as_bytes())?;
        if self.disk.is_some() {
            file.sync_all()?;
        }
        drop(file);
        if by_renaming {
            fs::rename(at, root.join(path))?;
            self.make_durable(root)?;
        }
        Ok(())
    }

    fn note(&self, text: String) {
        let time = jiff::Timestamp::now();
        self.diary.lock().unwrap().push(format!("{time} {text}"));
    }

    /// What was done with a path, and with the one it was called before.
    fn tells_of(&self, path: &str) -> String {
        let diary = self.diary.lock().unwrap();
        let named = |line: &&String| line.split(' ').any(|word| word == path);
        let before = diary.iter().find(named).and_then(|line| line.split(' ').nth(3)).unwrap_or(path);
        let is_about =
            |line: &&String| line.split(' ').any(|word| [path, before, "killed,", "mounted"].contains(&word));
        diary.iter().filter(is_about).cloned().collect::<Vec<_>>().join("\n")
    }

    fn mount(&self) {
        let _alone = self.mounted.write().unwrap();
        let mut mount = self.mount.lock().unwrap();
        let boot = format!("boot-{}", self.boots.load(Ordering::SeqCst));
        let mounting = self.mounting.clone().env("PARQUEDB_TEST_BOOT", &boot);
        *mount = mounting.try_mount();
        if mount.is_none() {
            // What was never heard of cannot be mounted without the remote.
            let one_in = self.weather.one_in.swap(0, Ordering::SeqCst);
            self.weather.parted.store(false, Ordering::SeqCst);
            *mount = Some(mounting.mount());
            self.weather.one_in.store(one_in, Ordering::SeqCst);
        }
        self.note("mounted".to_owned());
    }

    fn kill(&self) {
        if let Some(mount) = self.mount.lock().unwrap().take() {
            mount.kill9();
            self.note("killed, and so is what it was doing".to_owned());
        }
    }
}

/// However it ends, it is over then.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Kills, cuts and parts, until the time has come; how often what.
fn rage(
    server: &mut Server,
    players: &[Player],
    mut chance: Random,
    end: Instant,
) -> BTreeMap<&'static str, u32> {
    let mut raged = BTreeMap::new();
    while Instant::now() < end {
        thread::sleep(Duration::from_millis(200 + chance.below(1000)));
        let player = &players[chance.index(players.len())];
        let what = match (chance.below(8), &player.disk) {
            (0, _) => {
                server.kill();
                thread::sleep(Duration::from_millis(chance.below(1500)));
                server.crash_and_restart();
                "server"
            }
            (1, _) => {
                player.weather.parted.store(true, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(chance.below(2000)));
                player.weather.parted.store(false, Ordering::SeqCst);
                "parted"
            }
            (2..=4, Some(disk)) => {
                player.kill();
                disk.power_off();
                player.boots.fetch_add(1, Ordering::SeqCst);
                disk.power_on();
                player.mount();
                "power"
            }
            (5, Some(disk)) => {
                disk.reach_quota(true);
                thread::sleep(Duration::from_millis(chance.below(1500)));
                disk.reach_quota(false);
                "full"
            }
            _ => {
                player.kill();
                player.mount();
                "killed"
            }
        };
        *raged.entry(what).or_default() += 1;
    }
    raged
}

/// Everything that was ever published: paths and contents, in order.
fn history(server: &Server, id: &str) -> Vec<(String, Option<String>)> {
    let (mut all, mut since) = (Vec::new(), 0);
    loop {
        let target = format!("/api/sync/changes/{id}?since={since}");
        let page = get(&target).bearer(&server.token).send(&server.address).expect(200).json();
        for change in page["changes"].as_array().unwrap() {
            since = change["revision"].as_u64().unwrap();
            for put in change["put"].as_array().unwrap() {
                let text = |name: &str| put[name].as_str().unwrap().to_owned();
                all.push((text("path"), Some(text("hash"))));
            }
            let gone = change["delete"].as_array().into_iter().flatten();
            all.extend(gone.map(|path| (path.as_str().unwrap().to_owned(), None)));
        }
        if page["hasMore"] != true {
            return all;
        }
    }
}

/// Everybody is reached, and syncs until nothing is left to do.
fn calm(server: &Server, id: &str, players: &[Player]) {
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        let mut open = Vec::new();
        for (who, player) in players.iter().enumerate() {
            let mount = player.mount.lock().unwrap();
            let mount = mount.as_ref().unwrap();
            // On the disk that forgets there are no sockets: it is waited for.
            let synced = player.disk.is_none().then(|| ctl(server, mount, &["sync", "--json"]));
            let shown = crate::harness::xattr(&mount.path(), "user.parquedb.revision").unwrap();
            let pending = pending(server, &mount.path());
            if synced.as_ref().is_some_and(|synced| synced.code != 0)
                || pending > 0
                || shown != server.revision(id).to_string()
            {
                let told = Cli::owner(server).run(&["status", text(&mount.path()), "--json"]).stdout;
                open.push(format!(
                    "{who}: {pending} pending, revision {shown}, {synced:?}\n{told}\n{}",
                    mount.log()
                ));
            }
        }
        if open.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "it never becomes calm: {open:#?}");
        thread::sleep(Duration::from_millis(200));
    }
}

/// All that is kept of conflicts below a directory.
fn kept(dir: &Path) -> BTreeSet<String> {
    let is_copy = |path: &str| path.ends_with(".conflict");
    bytes_of(dir).into_iter().filter(|(path, _)| is_copy(path)).map(|(_, bytes)| sha256(&bytes)).collect()
}

#[test]
fn a_storm_loses_nothing_and_brings_nothing_back() {
    let seconds = number("PARQUEDB_TEST_STORM", 20);
    let seed = number("PARQUEDB_TEST_SEED", u64::from(std::process::id()));
    let mut server = Server::start();
    let id = server.register("d", "public");
    // So many that what goes is never much of it.
    let still: Vec<String> = (0..80 + 3 * seconds).map(|n| format!("still/{n}")).collect();
    let files: Vec<(&str, &[u8])> = still.iter().map(|path| (path.as_str(), path.as_bytes())).collect();
    server.publish(&id, &files);
    let mut chance = Random(seed);
    let strategy = ["newest", "local-wins", "remote-wins"][chance.index(3)];
    let patience = Duration::from_secs(seconds + 300);
    let players: Vec<Player> =
        (0..3).map(|who| Player::new(&server, strategy, seed + who, who == 0, patience)).collect();
    let over = AtomicBool::new(false);
    let raged = thread::scope(|scope| {
        for (who, player) in players.iter().enumerate() {
            player.weather.one_in.store(25, Ordering::SeqCst);
            let (over, chance) = (&over, Random(seed ^ (who as u64 + 1) << 20));
            scope.spawn(move || player.work(who, chance, over));
        }
        let _over = Over(&over);
        rage(&mut server, &players, chance, Instant::now() + Duration::from_secs(seconds))
    });
    for player in &players {
        player.weather.one_in.store(0, Ordering::SeqCst);
    }
    calm(&server, &id, &players);

    let done: Vec<u32> = players.iter().map(|player| player.done.load(Ordering::SeqCst)).collect();
    let wrong: u32 = players.iter().map(|player| player.weather.fired.load(Ordering::SeqCst)).sum();
    let published = history(&server, &id);
    println!(
        "seed {seed}, {strategy}: {done:?} operations, {} published, {wrong} requests went wrong, {raged:?}",
        published.len()
    );
    assert!(done.iter().all(|done| *done > 0) && wrong > 0 && !raged.is_empty());
    let (mut now, mut ever) = (BTreeMap::new(), BTreeSet::new());
    let mut brought = BTreeSet::new();
    for (path, hash) in published.iter().cloned() {
        match hash {
            Some(hash) => {
                // An empty file is what is left of a write that failed.
                let is_new = brought.insert((path.clone(), hash.clone())) || hash == sha256(b"");
                assert!(is_new, "seed {seed}: {path} has come back");
                ever.insert(hash.clone());
                now.insert(path, hash);
            }
            None => drop(now.remove(&path)),
        }
    }
    for (who, player) in players.iter().enumerate() {
        // Another process: this one has looked at earlier revisions.
        let listed = crate::harness::python(
            "import sys, os, json, hashlib\n\
             root, found = sys.argv[1], {}\n\
             for at, _, names in os.walk(root):\n\
             \x20   for name in names:\n\
             \x20       path = os.path.join(at, name)\n\
             \x20       found[os.path.relpath(path, root)] = hashlib.sha256(open(path, 'rb').read()).hexdigest()\n\
             print(json.dumps(found))",
            &[&player.mounting.path()],
        );
        let mut shown: BTreeMap<String, String> = serde_json::from_value(listed).unwrap();
        shown.remove("storm.token");
        assert_eq!(shown, now, "seed {seed}: what {who} shows");
        let kept: BTreeSet<String> =
            players.iter().flat_map(|player| kept(player.mounting.state())).collect();
        for (path, text) in player.wrote.lock().unwrap().iter() {
            let hash = sha256(text.as_bytes());
            assert!(
                ever.contains(&hash) || kept.contains(&hash),
                "seed {seed}: what {who} wrote to {path} is lost: {text}; there is {:?} now\n{}\npublished: {:?}\n{}",
                now.get(path),
                player.tells_of(path),
                published.iter().filter(|(one, _)| one == path).collect::<Vec<_>>(),
                player.mount.lock().unwrap().as_ref().map(Mount::log).unwrap_or_default(),
            );
        }
    }
    for player in &players {
        player.mount.lock().unwrap().take().unwrap().unmount();
    }
}
