//! F24: a mount as a systemd user service, under a real `systemd --user` in namespaces of its own.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Cli, Responder, Server};

/// Begins a `systemd --user`, in `unshare`d namespaces, and then runs the rest of the script.
const BEGIN: &str = r#"
set -eu
mount --make-rprivate /
mount -t proc proc /proc
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs tmpfs /run/systemd
mkdir /run/systemd/system
mkdir -p "$XDG_RUNTIME_DIR"
/lib/systemd/systemd --user --log-target=console >"$HOME/systemd.log" 2>&1 &
for _ in $(seq 100); do
    [ "$(systemctl --user is-system-running 2>/dev/null)" = running ] && break
    sleep 0.1
done
unit="parquedb-mount@$(systemd-escape alice/my-data).service"
show() { systemctl --user show "$unit" -p "$1" --value; }
until_is() { for _ in $(seq 200); do [ "$(show "$1")" = "$2" ] && return; sleep 0.1; done; echo "$1 is $(show "$1") and not $2" >&2; exit 1; }
said() { for _ in $(seq 200); do [ -e "$HOME/$1" ] && return; sleep 0.1; done; echo "nobody said $1" >&2; exit 1; }
"#;

const STORY: &str = r#"
parquedb service install alice/my-data "$HOME/mnt" -- --sync on-change --last-sync 4 --poll 1 --exclude 'my "own" files/*'
until_is ActiveState active
cat "$HOME/mnt/one"; echo
parquedb service status alice/my-data
tr '\0' '\n' <"/proc/$(show MainPID)/cmdline"
# What no restart mends is not restarted.
if parquedb service install alice/none; then echo 'there is no such database' >&2; exit 1; fi
sleep 3
echo "none: $(systemctl --user show parquedb-mount@alice-none.service -p ActiveState -p NRestarts --value | tr '\n' ' ')"
parquedb service remove alice/none
# Stopped with changes that are not published.
echo stopped >"$HOME/mnt/stopped"
systemctl --user stop "$unit"
echo "stopped at once, result $(show Result)"
mountpoint -q "$HOME/mnt" && { echo 'still mounted' >&2; exit 1; }
touch "$HOME/was-stopped"; said go-on-1
# Killed in the middle.
systemctl --user start "$unit"
echo killed >"$HOME/mnt/killed"
kill -9 "$(show MainPID)"
until_is NRestarts 1
until_is ActiveState active
cat "$HOME/mnt/killed"
# Hung: systemd hears nothing of it any more.
mkdir -p "$XDG_CONFIG_HOME/systemd/user/$unit.d"
printf '[Service]\nWatchdogSec=3\n' >"$XDG_CONFIG_HOME/systemd/user/$unit.d/quick.conf"
systemctl --user daemon-reload
systemctl --user restart "$unit"
before=$(show NRestarts)
kill -STOP "$(show MainPID)"
for _ in $(seq 300); do [ "$(show NRestarts)" != "$before" ] && break; sleep 0.1; done
[ "$(show NRestarts)" != "$before" ] || { echo 'the watchdog did not bite' >&2; exit 1; }
until_is ActiveState active
echo "mounted again: $(ls "$HOME/mnt" | tr '\n' ' ')"
# A remote that does not answer.
touch "$HOME/hang"
echo hung >"$HOME/mnt/hung"
began=$(date +%s)
systemctl --user stop "$unit"
echo "stopped after $(($(date +%s) - began)) s, while it hung: result $(show Result)"
rm "$HOME/hang"
systemctl --user start "$unit"
cat "$HOME/mnt/hung"
touch "$HOME/was-hung"; said go-on-2
parquedb service remove alice/my-data
mountpoint -q "$HOME/mnt" && { echo 'still mounted' >&2; exit 1; }
ls "$XDG_CONFIG_HOME/systemd/user"
echo ended
"#;

#[test]
fn f24_without_systemd_no_service_is_installed_and_nothing_is_left() {
    // There is no such program, or nobody whom it could ask.
    for programs in ["/nonexistent", "/usr/bin:/bin"] {
        let cli = Cli::new().env("PATH", programs);
        let said = cli.run(&["service", "install", "alice/d"]).expect(1).stderr;
        assert!(said.contains("systemctl"), "{said}");
        assert!(!cli.config_dir().with_file_name("systemd").exists(), "{said}");
    }
}

#[test]
fn f24_a_service_starts_stops_survives_its_death_and_a_hung_remote() {
    let server = Server::start();
    let id = server.register("my-data", "public");
    server.publish(&id, &[("one", b"1")]);
    let published = |path: &str| {
        let answer = crate::harness::get(&format!("/db/alice/my-data/{path}")).send(&server.address);
        (answer.status == 200).then_some(answer.body)
    };
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().to_owned();
    let (address, hang) = (server.address.clone(), home.join("hang"));
    let proxy = Responder::start(move |incoming| {
        while hang.exists() {
            std::thread::sleep(Duration::from_millis(50));
        }
        if incoming.target.starts_with("/api/sync/events/") {
            return crate::harness::answer(404, &[], b"");
        }
        incoming.forward(&address).into()
    });
    fs::create_dir_all(home.join("config/parquedb")).unwrap();
    let environment = format!("PARQUEDB_REMOTE_URL={}\nPARQUEDB_TOKEN={}\n", proxy.url(), server.token);
    fs::write(home.join("config/parquedb/mount.env"), environment).unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_parquedb")).parent().unwrap();
    let output = fs::File::create(home.join("output")).unwrap();
    let mut child = Command::new("unshare")
        .args([
            "--mount",
            "--pid",
            "--cgroup",
            "--fork",
            "--kill-child",
            "bash",
            "-c",
            &format!("{BEGIN}{STORY}"),
        ])
        .env_clear()
        .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", programs.display()))
        .env("HOME", &home)
        .env("XDG_RUNTIME_DIR", home.join("run"))
        .env("XDG_CONFIG_HOME", home.join("config"))
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap();
    let said = || fs::read_to_string(home.join("output")).unwrap();
    let log = || fs::read_to_string(home.join("systemd.log")).unwrap_or_default();
    let began = Instant::now();
    let mut until = |name: &str| {
        while !home.join(name).exists() {
            let ended = child.try_wait().unwrap();
            assert!(
                ended.is_none() && began.elapsed() < Duration::from_secs(150),
                "{name}: {}\n{}",
                said(),
                log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    until("was-stopped");
    assert_eq!(published("stopped").as_deref(), Some(&b"stopped\n"[..]), "{}", said());
    fs::write(home.join("go-on-1"), "").unwrap();
    until("was-hung");
    for name in ["killed", "hung"] {
        crate::harness::until(|| published(name) == Some(format!("{name}\n").into_bytes()));
    }
    fs::write(home.join("go-on-2"), "").unwrap();
    assert!(child.wait().unwrap().success(), "{}\n{}", said(), log());
    let said = said();
    println!("{said}");
    for expected in [
        "1\n",
        "parquedb-mount@alice-my\\x2ddata.service  active (running)  alice/my-data: ",
        "\nmy \"own\" files/*\n",
        "none: 0 failed ",
        "stopped at once, result success",
        "killed\n",
        "mounted again: killed one stopped ",
        "while it hung: result success",
        "hung\n",
        "ended",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let stopped = said
        .lines()
        .find_map(|line| line.strip_prefix("stopped after ")?.split(' ').next()?.parse::<u64>().ok());
    assert!(stopped.is_some_and(|seconds| seconds < 30), "{said}");
}
