//! `parquedb status`.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};

use super::{database, mounting};
use crate::harness::{Cli, Mount, Server, text};

impl Server {
    /// What `parquedb status` says of a mount.
    pub(super) fn status(&self, mount: &Mount) -> String {
        Cli::owner(self).run(&["status", text(&mount.path())]).expect(0).stdout
    }
}

#[test]
fn status_tells_what_is_not_published_with_and_without_the_daemon() {
    let (server, _) = database();
    let mounting = mounting(&server);
    let mount = mounting.mount();
    let nothing = server.status(&mount);
    assert!(nothing.contains("Nothing is waiting"), "{nothing}");
    fs::write(mount.at("new"), "new").unwrap();
    let file = File::options().write(true).open(mount.at("large")).unwrap();
    file.write_all_at(b"changed", 10).unwrap();
    file.write_all_at(b"changed", 1000).unwrap();
    fs::write(mount.at("text"), "other").unwrap();
    fs::remove_file(mount.at("only/one")).unwrap();
    fs::rename(mount.at("dir/two"), mount.at("dir/2")).unwrap();
    symlink("new", mount.at("link")).unwrap();
    fs::set_permissions(mount.at("dir/one"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(mount.at("empty")).unwrap();
    fs::write(mount.at(".env"), "secret").unwrap();
    drop(file);
    let cli = Cli::owner(&server);
    let told = |of: &str, rest: &[&str]| {
        let mut args = vec!["status", of, "--state-dir", text(mounting.state())];
        args.extend(rest);
        cli.run(&args).expect(0).stdout
    };
    let lines = told(text(&mount.path()), &[]);
    let expected = [
        "created    new  3 B",
        "changed    large  bytes 10-16, 1000-1006 of 3.15 MB",
        "changed    text  all of it of 5 B",
        "deleted    only/one",
        "renamed    dir/2  was dir/two",
        "here only  link  a symbolic link",
        "here only  dir/one  its attributes",
        "here only  empty  a directory as such",
        "here only  only  a directory as such",
        "here only  .env  a name that never travels",
        "5 changes are not published.",
        "5 stay here: the remote has no room for them",
    ];
    for expected in expected {
        assert!(lines.contains(expected), "{expected}: {lines}");
    }
    let pid = mount.pid().as_raw_nonzero().to_string();
    assert!(lines.contains(&format!("mounted by process {pid}")), "{lines}");
    assert!(lines.starts_with("alice/d (replica main"), "{lines}");
    let pending = |of: &str| {
        let json: serde_json::Value = serde_json::from_str(&told(of, &["--json"])).unwrap();
        json["replicas"][0]["pending"].as_array().unwrap().len()
    };
    assert_eq!(pending("alice/d"), 10);
    mount.kill9();
    drop(server);
    assert_eq!(pending("alice/d"), 10, "nobody has it mounted, and the remote is gone");
    assert!(told("alice/d", &[]).contains("not mounted"));
    cli.run(&["status", "alice/other"]).expect(5);
    cli.run(&["status", "nonsense"]).expect(2);
    cli.run(&["status", "/tmp"]).expect(2);
}
