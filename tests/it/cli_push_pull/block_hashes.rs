//! What the server says of blocks comes along with a pull, is in nobody's way, and follows the content.

use crate::harness::{Cli, Server, TempTree, data_files, noise, write_files};

#[test]
fn block_hashes_survive_a_round_trip_and_change_with_the_content() {
    let (server, a, b) = (Server::start(), TempTree::new(), TempTree::new());
    let cli = Cli::owner(&server);
    write_files(a.path(), [("large", noise(1, 3 << 20)), ("small", noise(2, 1000))]);
    cli.push(a.path(), &["--slug", "x"]).expect(0);
    cli.pull("alice/x", b.path(), &[]).expect(0);
    let pulled = b.manifest()["files"]["large"]["blockHashes"].clone();
    assert_eq!(pulled["root"].as_str().unwrap().len(), 32);
    assert!(b.manifest()["files"]["small"].get("blockHashes").is_none());

    // Nothing to do on either side.
    for dir in [a.path(), b.path()] {
        cli.push(dir, &["--slug", "x"]).expect(0);
        cli.pull("alice/x", dir, &[]).expect(0);
    }
    assert_eq!(b.manifest()["files"]["large"]["blockHashes"], pulled);
    let id = b.manifest()["databaseId"].as_str().unwrap().to_owned();
    assert_eq!(server.revision(&id), 1);

    // Edited where the old hashes are known; and the same content under another name.
    let mut edited = noise(1, 3 << 20);
    edited[2 << 20] ^= 1;
    write_files(b.path(), [("large", edited), ("again", noise(1, 3 << 20))]);
    cli.push(b.path(), &["--slug", "x"]).expect(0);
    cli.pull("alice/x", a.path(), &[]).expect(0);
    assert_eq!(data_files(a.path()), data_files(b.path()));
    let files = a.manifest()["files"].clone();
    assert_eq!(files["again"]["blockHashes"], pulled, "they belong to the content");
    assert!(files["large"]["blockHashes"].is_object());
    assert_ne!(files["large"]["blockHashes"], pulled);
}
