//! Commands about a directory, said in a mount or of a place in one.

use std::fs;

use super::{by_hand, ctl, database, published, standing};
use crate::harness::{Cli, names, text, until};

#[test]
fn what_keeps_books_of_its_own_keeps_them_out_of_a_mount() {
    let (server, id) = database();
    let mount = by_hand(&server).mount();
    let revision = server.revision(&id);
    for inside in ["", "dir"] {
        for args in [&["sync"][..], &["push"], &["pull", "alice/d"]] {
            let refused = Cli::owner(&server).in_dir(&mount.at(inside)).run(args).expect(2);
            assert!(refused.stderr.contains("parquedb ctl sync /"), "{args:?}: {refused:?}");
        }
    }
    for pulled in ["dir/new", "new/below", "new/../below"] {
        let pulled = mount.at(pulled);
        let refused = Cli::owner(&server).run(&["pull", "alice/d", "--directory", text(&pulled)]).expect(2);
        assert!(refused.stderr.contains("parquedb ctl sync /"), "{refused:?}");
    }
    let around = Cli::owner(&server).in_dir(mount.path().parent().unwrap()).run(&["sync"]).expect(2);
    assert!(around.stderr.contains("has a mount in it"), "{around:?}");
    assert_eq!(names(&mount.at("dir")), ["x", "y"]);
    ctl(&server, &mount, &["sync"]).expect(0);
    assert_eq!(server.revision(&id), revision);
    let listed = Cli::owner(&server).run(&["list", "--json"]).expect(0).json();
    assert_eq!(listed["databases"].as_array().unwrap().len(), 1, "{listed}");
    mount.unmount();
}

#[test]
fn to_look_or_to_decide_leaves_nothing_in_a_directory_that_was_never_synced() {
    let (server, _) = database();
    let empty = tempfile::tempdir().unwrap();
    let cli = Cli::owner(&server).in_dir(empty.path());
    assert_eq!(cli.run(&["conflicts"]).expect(0).stdout, "No conflicts.\n");
    cli.run(&["conflicts", "dismiss"]).expect(0);
    let refused = cli.run(&["resolve", "one", "--local"]).expect(5);
    assert!(refused.stderr.contains("no conflict about 'one'"), "{refused:?}");
    assert!(names(empty.path()).is_empty());
}

#[test]
fn a_conflict_is_listed_and_decided_from_wherever_one_is() {
    let (server, id) = database();
    let mount = by_hand(&server).args(&["--strategy", "manual"]).mount();
    for name in ["one", "two", "dir/x", "dir/y"] {
        fs::write(mount.at(name), format!("my {name}")).unwrap();
    }
    server.publish(&id, &[("one", b"1 1"), ("two", b"2 2"), ("dir/x", b"x x"), ("dir/y", b"y y")]);
    ctl(&server, &mount, &["sync"]).expect(3);
    let (cli, path) = (Cli::owner(&server), mount.path());
    let below = Cli::owner(&server).in_dir(&mount.at("dir"));
    let listed = below.run(&["conflicts"]).expect(0).stdout;
    let remedy = format!("4 files to decide: parquedb resolve --directory {} PATH", text(&path));
    assert!(listed.contains("\ndir/y  ") && listed.contains(&remedy), "{listed}");

    let mistyped = below.run(&["resolve", "z", "--local"]).expect(5);
    assert!(mistyped.stderr.contains("no conflict about 'dir/z'"), "{mistyped:?}");
    assert_eq!(standing(&server, &mount)["state"], "conflict", "nothing else is wrong");

    // As it is called there, as it is listed, and by ways that lead into the mount.
    below.run(&["resolve", "x", "--local"]).expect(0);
    below.run(&["resolve", "dir/y", "--local"]).expect(0);
    let name = path.file_name().unwrap().to_str().unwrap();
    let beside = Cli::owner(&server).in_dir(path.parent().unwrap());
    beside.run(&["resolve", &format!("{name}/one"), "--remote"]).expect(0);
    cli.run(&["resolve", text(&mount.at("two")), "--local"]).expect(0);
    for (name, bytes) in [("dir/x", "my dir/x"), ("dir/y", "my dir/y"), ("one", "1 1"), ("two", "my two")] {
        assert_eq!(published(&server, name).unwrap(), bytes.as_bytes(), "{name}");
        until(|| mount.read(name).is_ok_and(|read| read == bytes.as_bytes()));
    }
    assert_eq!(
        below.run(&["conflicts"]).expect(0).stdout.lines().last().unwrap().split(':').next(),
        Some("4 files decided")
    );
    mount.unmount();
}

#[test]
fn status_says_how_things_are_where_nothing_is_mounted_any_more() {
    let (server, _) = database();
    let mounting = by_hand(&server);
    let mount = mounting.mount();
    let (path, cli) = (mount.path(), Cli::owner(&server));
    let by_hand = cli.run(&["status", text(&mount.at("dir"))]).expect(0);
    assert!(by_hand.stdout.contains("next when 'parquedb ctl sync' says so"), "{by_hand:?}");
    mount.kill9();
    for args in [&["status"][..], &["ctl", "sync"]] {
        let dead = cli.run(&[args, &[text(&path)]].concat()).expect(1);
        assert!(dead.stderr.contains("is gone: mount it again"), "{args:?}: {dead:?}");
    }
    mounting.mount().unmount();
    let nothing = cli.run(&["status", text(&path)]).expect(2);
    assert!(nothing.stderr.contains("parquedb status OWNER/SLUG"), "{nothing:?}");
    let throw_away = mounting.args(&["--overlay", "memory"]).mount();
    fs::write(throw_away.at("new"), "new").unwrap();
    let told = cli.run(&["status", text(&throw_away.path())]).expect(0);
    assert!(told.stdout.contains("this mount publishes nothing"), "{told:?}");
    throw_away.unmount();
}

#[test]
fn a_file_that_takes_a_conflicts_place_is_never_half_there_and_what_was_here_is_kept() {
    let (server, id) = database();
    let mounting = by_hand(&server).args(&["--strategy", "manual"]);
    let mount = mounting.mount();
    let (cli, path) = (Cli::owner(&server), mount.path());
    let resolve = |path: &str, file: &str| {
        Cli::owner(&server).in_dir(&mount.path()).run(&["resolve", path, "--file", file])
    };
    for name in ["one", "two", "dir/x"] {
        fs::write(mount.at(name), format!("my {name}")).unwrap();
    }
    server.publish(&id, &[("one", b"1 1"), ("two", b"2 2"), ("dir/x", b"x x")]);
    ctl(&server, &mount, &["sync"]).expect(3);

    // Edited in its place, and said to be it.
    fs::write(mount.at("one"), "merged in its place").unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));
    resolve("one", "one").expect(0);
    assert_eq!(published(&server, "one").unwrap(), b"merged in its place");

    // What is in no conflict is left alone.
    let merged = mounting.beside().join("merged");
    fs::write(&merged, "merged").unwrap();
    fs::write(mount.at("dir/y"), "nobody else's").unwrap();
    resolve("dir/y", text(&merged)).expect(5);
    ctl(&server, &mount, &["pause"]).expect(0);
    resolve("two", text(&merged)).expect(3);
    assert_eq!(mount.read("two").unwrap(), b"my two");
    assert_eq!(mount.read("dir/y").unwrap(), b"nobody else's");
    ctl(&server, &mount, &["resume"]).expect(0);

    // Nor is anything decided about what somebody writes to.
    let open = fs::File::options().append(true).open(mount.at("two")).unwrap();
    let refused = cli.run(&["resolve", text(&mount.at("two")), "--local"]).expect(3);
    assert!(refused.stderr.contains("'two' is open for writing"), "{refused:?}");
    let listed = || cli.run(&["conflicts", "--directory", text(&path), "--json"]).expect(0).json();
    ctl(&server, &mount, &["sync"]).expect(3);
    assert_eq!(listed()["open"].as_array().unwrap().len(), 2, "{}", listed());
    drop(open);
    std::thread::sleep(std::time::Duration::from_secs(1));

    resolve("two", text(&merged)).expect(0);
    assert_eq!(published(&server, "two").unwrap(), b"merged");
    let told = listed();
    let two = told["decided"].as_array().unwrap().iter().find(|one| one["path"] == "two").unwrap();
    assert_eq!(fs::read(two["copies"]["local"].as_str().unwrap()).unwrap(), b"my two", "{told}");
    mount.unmount();
}
