//! Block hashes: published with an entry by the server alone, and sent beside a range on request. Computed here once
//! more, from the specification in `ARCHITECTURE.md`.

use base64::Engine;
use serde_json::json;

use crate::harness::{Response, Server, get, noise, put_entry};

const BLOCK: usize = 32 << 10;
const MOST: usize = 128;

type Hash = Vec<u8>;

fn hash(kind: u8, parts: &[&[u8]]) -> Hash {
    let bytes = [&[kind][..], &parts.concat()].concat();
    ring::digest::digest(&ring::digest::SHA256, &bytes).as_ref()[..16].to_vec()
}

/// The levels of the tree, leaves first.
fn levels(bytes: &[u8]) -> Vec<Vec<Hash>> {
    let mut levels = vec![bytes.chunks(BLOCK).map(|block| hash(0, &[block])).collect::<Vec<_>>()];
    while levels.last().unwrap().len() > 1 {
        let below = levels.last().unwrap();
        let pair = |pair: &[Hash]| match pair {
            [left, right] => hash(1, &[left, right]),
            one => one[0].clone(),
        };
        levels.push(below.chunks(2).map(pair).collect());
    }
    levels
}

fn root(bytes: &[u8]) -> String {
    let top = levels(bytes).pop().unwrap().remove(0);
    hex::encode(hash(2, &[&(bytes.len() as u64).to_le_bytes(), &top]))
}

/// The value the header must have for blocks `start..end`.
fn proof(bytes: &[u8], start: usize, end: usize) -> String {
    let levels = levels(bytes);
    let mut nodes = Vec::new();
    let (mut left, mut right) = (start, end);
    for (depth, level) in levels.iter().enumerate() {
        if depth == usize::from(end - start > 64) {
            nodes.extend(level[left..right].concat());
        }
        if left % 2 == 1 {
            nodes.extend(&level[left - 1]);
        }
        if right % 2 == 1 && right < level.len() {
            nodes.extend(&level[right]);
        }
        (left, right) = (left / 2, right.div_ceil(2));
    }
    format!("{start}-{} {}", end - 1, base64::engine::general_purpose::STANDARD.encode(nodes))
}

fn database(files: &[(&str, &[u8])]) -> (Server, String) {
    let server = Server::start();
    let id = server.register("x", "public");
    server.publish(&id, files);
    (server, id)
}

fn ask(server: &Server, name: &str, range: &str) -> Response {
    let ask = get(&format!("/db/alice/x/{name}")).with("X-ParqueDB-Want-Proof", "1");
    ask.with("Range", range).send(&server.address)
}

#[test]
fn the_manifest_carries_the_roots_of_large_files() {
    let (large, small) = (noise(1, (5 << 20) + 77), noise(2, 1 << 20));
    let (server, id) = database(&[("large", &large), ("small", &small)]);
    let files = server.manifest(&id).expect(200).json()["files"].clone();
    let expected = json!({"algorithm": "sha256-128-tree", "blockSize": BLOCK, "root": root(&large)});
    assert_eq!(files["large"]["blockHashes"], expected);
    assert!(files["small"].get("blockHashes").is_none(), "it is checked whole");
}

#[test]
fn a_range_of_whole_blocks_comes_with_its_proof_if_it_is_asked_for() {
    let bytes = noise(3, 201 * BLOCK + 5);
    let (server, _) = database(&[("f", &bytes)]);
    for (start, end) in [
        (0, 1),
        (1, 2),
        (3, 40),
        (64, 128),
        (137, 201),
        (138, 202),
        (201, 202),
        (0, 65),
        (1, 128),
        (73, 201),
        (74, 202),
    ] {
        let last = (end * BLOCK).min(bytes.len());
        let answer = ask(&server, "f", &format!("bytes={}-{}", start * BLOCK, last - 1)).expect(206);
        assert_eq!(
            answer.header("x-parquedb-block-hashes"),
            Some(&*proof(&bytes, start, end)),
            "{start}..{end}"
        );
        assert!(answer.body == bytes[start * BLOCK..last]);
    }
    // The tail by its length is the same range.
    let tail = ask(&server, "f", &format!("bytes=-{}", BLOCK + 5)).expect(206);
    assert_eq!(tail.header("x-parquedb-block-hashes"), Some(&*proof(&bytes, 200, 202)));
    // All headers together stay below what proxies take.
    let longest = ask(&server, "f", &format!("bytes={}-{}", 65 * BLOCK, (65 + MOST) * BLOCK - 1)).expect(206);
    let length: usize = longest.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    assert!(length < 4000 && longest.header("x-parquedb-block-hashes").is_some(), "{length}");
}

#[test]
fn anything_else_goes_out_without() {
    let (bytes, small) = (noise(4, 200 * BLOCK), noise(5, 10 * BLOCK));
    let (server, _) = database(&[("f", &bytes), ("small", &small)]);
    let without = |answer: Response| assert_eq!(answer.header("x-parquedb-block-hashes"), None);
    for range in ["bytes=0-0", "bytes=1-32768", "bytes=0-32766", "bytes=0-32767,65536-98303", "bytes=-5"] {
        without(ask(&server, "f", range).expect(206));
    }
    without(ask(&server, "f", &format!("bytes=0-{}", (MOST + 1) * BLOCK - 1)).expect(206));
    without(ask(&server, "small", "bytes=0-32767").expect(206));
    without(ask(&server, "f", "bytes=99999999-").expect(416));
    let plain = get("/db/alice/x/f").with("Range", "bytes=0-32767");
    without(plain.send(&server.address).expect(206));
    without(plain.with("X-ParqueDB-Want-Proof", "0").send(&server.address).expect(206));
    without(get("/db/alice/x/f").with("X-ParqueDB-Want-Proof", "1").send(&server.address).expect(200));
}

#[test]
fn a_publisher_cannot_say_what_blocks_are_right() {
    let bytes = noise(6, 3 << 20);
    let (server, id) = database(&[("first", b"1")]);
    server.upload(&id, "f", &bytes);
    for (n, claim) in [
        json!({"algorithm": "sha256-128-tree", "blockSize": BLOCK, "root": "00".repeat(16)}),
        json!({"algorithm": "another", "root": "x"}),
        json!(7),
    ]
    .into_iter()
    .enumerate()
    {
        let (mut entry, mut small) = (put_entry("f", &bytes), put_entry("g", b"1"));
        entry["blockHashes"] = claim.clone();
        small["blockHashes"] = claim;
        entry["note"] = json!("kept");
        let base = server.revision(&id);
        server.commit(&id, &format!("commit-{n}"), base, &[entry, small], &[]).expect(200);
        let files = server.manifest(&id).expect(200).json()["files"].clone();
        assert_eq!(files["f"]["blockHashes"]["root"], root(&bytes));
        assert_eq!(files["f"]["note"], "kept");
        assert!(files["g"].get("blockHashes").is_none());
    }
}

#[test]
fn an_earlier_revision_is_proven_after_a_restart_and_a_missing_tree_costs_only_the_proof() {
    let (old, new) = (noise(7, 2 << 20), noise(8, 3 << 20));
    let (mut server, id) = database(&[("f", &old)]);
    server.publish(&id, &[("f", &new)]);
    server.restart();
    let earlier = || ask(&server, "f?revision=1", "bytes=32768-65535").expect(206);
    assert_eq!(earlier().header("x-parquedb-block-hashes"), Some(&*proof(&old, 1, 2)));
    let trees = server.store().join("databases").join(&id).join("trees");
    assert!(trees.is_dir());
    std::fs::remove_dir_all(&trees).unwrap();
    let answer = earlier();
    assert_eq!(answer.header("x-parquedb-block-hashes"), None);
    assert!(answer.body == old[BLOCK..2 * BLOCK]);
}
