//! F05, rule 26: where the manifest has block hashes, a block is checked when it is fetched, long before its file is
//! complete. An altered one is EIO, or made good by asking again; the others can be read; nothing wrong is kept.

use std::time::{Duration, Instant};

use super::proxy::{Proxy, asked, with_header};
use super::{assert_right, database_of, errno, impatient, read_directly, slice};
use crate::harness::{Mount, Reply, Request, Response, Server, until};

const MIB: usize = 1 << 20;
const BLOCK: usize = 32 << 10;
const HASHES: &str = "x-parquedb-block-hashes";

type Files = Vec<(String, Vec<u8>)>;

fn one_large() -> (Server, Files, Proxy) {
    let (server, files) = database_of(&[("f", 10 * MIB + 7)]);
    let proxy = Proxy::before(&server);
    (server, files, proxy)
}

/// Flips a bit of the file's byte at `at` wherever it goes by.
fn flip(at: usize) -> impl FnMut(&Request, Response) -> Reply + Send {
    move |request, mut honest| {
        let (first, last) = asked(request);
        if (first..=last).contains(&(at as u64)) && honest.status == 206 {
            honest.body[at - first as usize] ^= 0x10;
        }
        honest.into()
    }
}

/// Reads the file block by block, and gives the offsets of those that cannot be read; the others must be right.
fn unreadable(mount: &Mount, bytes: &[u8]) -> Vec<usize> {
    let mut failed = Vec::new();
    for offset in (0..bytes.len()).step_by(BLOCK) {
        match read_directly(&mount.at("f"), offset as u64, BLOCK) {
            Ok(read) => assert!(read == slice(bytes, offset as u64, BLOCK), "wrong bytes at {offset}"),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EIO));
                failed.push(offset);
            }
        }
    }
    failed
}

#[test]
fn f05_a_byte_altered_once_is_made_good_by_asking_again() {
    let (_server, files, proxy) = one_large();
    let mount = impatient(&proxy.url()).mount();
    let mut flip = flip(5 * MIB + 11);
    let mut done = false;
    proxy.spoil(move |request, honest| {
        let (first, last) = asked(request);
        if done || !(first..=last).contains(&(5 * MIB as u64 + 11)) {
            return honest.into();
        }
        done = true;
        flip(request, honest)
    });
    assert_right(&mount.path(), &files);
    let stats = mount.stats();
    assert_eq!(stats.responses_refused, 1);
    assert!(stats.bytes_proven >= files[0].1.len() as u64, "{stats:?}");
    assert_eq!(stats.bytes_proven, stats.bytes_fetched, "nothing came unproven");
    assert!(mount.log().contains("altered bytes") || stats.responses_refused == 1);
}

#[test]
fn rule_26_an_altered_block_is_eio_the_others_read_and_nothing_wrong_is_kept() {
    let (_server, files, proxy) = one_large();
    let bytes = &files[0].1;
    for at in [0, 5 * MIB + 11, 10 * MIB + 6] {
        let mounting = impatient(&proxy.url());
        proxy.spoil(flip(at));
        let mount = mounting.mount();
        // The first bytes read of the file are those around it: nothing was complete before.
        let began = Instant::now();
        let around = read_directly(&mount.at("f"), (at / BLOCK * BLOCK) as u64, BLOCK);
        assert_eq!(errno(around), Some(libc::EIO), "at {at}");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert!(mount.stats().responses_refused > 0);

        assert_eq!(unreadable(&mount, bytes), [at / BLOCK * BLOCK], "at {at}");
        assert_eq!(errno(mount.read("f")), Some(libc::EIO), "at {at}");
        assert!(mount.log().contains("altered bytes"), "{}", mount.log());
        mount.unmount();

        // The same cache at an honest remote: all but the one block is there, and right.
        proxy.honest();
        let mount = mounting.mount();
        assert_right(&mount.path(), &files);
        let stats = mount.stats();
        assert_eq!((stats.responses_refused, stats.blocks_rotten), (0, 0), "at {at}");
        assert!(stats.bytes_fetched <= 2 * BLOCK as u64, "at {at}: {stats:?}");
        mount.unmount();
    }
}

#[test]
fn rule_26_bytes_that_are_all_altered_are_eio_soon_and_the_mount_recovers() {
    let (_server, files, proxy) = one_large();
    let mount = impatient(&proxy.url()).mount();
    proxy.spoil(|_, mut honest| {
        honest.body.iter_mut().for_each(|byte| *byte ^= 1);
        honest.into()
    });
    let began = Instant::now();
    assert_eq!(errno(mount.read("f")), Some(libc::EIO));
    for offset in [0, MIB, 7 * MIB + 5] {
        assert_eq!(errno(read_directly(&mount.at("f"), offset as u64, 4096)), Some(libc::EIO));
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(mount.stats().bytes_proven, 0);
    proxy.honest();
    assert_right(&mount.path(), &files);
}

#[test]
fn rule_26_wrong_block_hashes_are_refused_and_those_of_another_range_are_none() {
    let (_server, files, proxy) = one_large();
    type Alter = fn(&str) -> String;
    let wrong: [(&str, Alter); 5] = [
        ("a digit", |value| {
            // Of the last node: what stands first may be a leaf beside the blocks, which is held against one of them only.
            let at = value.len() - 12;
            let other = if &value[at..=at] == "A" { "B" } else { "A" };
            format!("{}{other}{}", &value[..at], &value[at + 1..])
        }),
        ("a node less", |value| {
            let (blocks, nodes) = value.split_once(' ').unwrap();
            let engine = base64::engine::general_purpose::STANDARD;
            let mut nodes = base64::Engine::decode(&engine, nodes).unwrap();
            nodes.truncate(nodes.len() - 16);
            format!("{blocks} {}", base64::Engine::encode(&engine, nodes))
        }),
        ("no nodes", |value| format!("{} ", value.split_once(' ').unwrap().0)),
        ("empty", |_| String::new()),
        ("words", |_| "see other".into()),
    ];
    for (what, alter) in wrong {
        proxy.spoil(move |_, honest| {
            let value = alter(honest.header(HASHES).unwrap());
            with_header(honest, HASHES, Some(&value)).into()
        });
        let mount = impatient(&proxy.url()).mount();
        assert_eq!(errno(mount.read("f")), Some(libc::EIO), "{what}");
        let stats = mount.stats();
        assert!(stats.responses_refused > 0 && stats.bytes_fetched == 0, "{what}: {stats:?}");
        proxy.honest();
        assert_right(&mount.path(), &files);
        mount.unmount();
    }
    // A proxy that puts ranges together hands on what came with another one.
    proxy.spoil(|_, honest| {
        let nodes = honest.header(HASHES).unwrap().split_once(' ').unwrap().1.to_owned();
        with_header(honest, HASHES, Some(&format!("1000-1001 {nodes}"))).into()
    });
    let mount = impatient(&proxy.url()).mount();
    assert_right(&mount.path(), &files);
    let stats = mount.stats();
    assert_eq!((stats.responses_refused, stats.bytes_proven), (0, 0));
}

/// A proxy that takes the block hashes away, like an older server or a static host.
fn strip(honest: Response) -> Response {
    with_header(honest, HASHES, None)
}

#[test]
fn without_block_hashes_the_whole_file_is_checked_and_a_wrong_one_is_eio_from_then_on() {
    let (_server, files, proxy) = one_large();
    let mount = impatient(&proxy.url()).mount();
    proxy.spoil(|_, honest| strip(honest).into());
    assert_right(&mount.path(), &files);
    assert_eq!(mount.stats().bytes_proven, 0);
    mount.unmount();

    let mut flip = flip(3 * MIB);
    proxy.spoil(move |request, honest| flip(request, strip(honest)));
    let mounting = impatient(&proxy.url());
    let mount = mounting.mount();
    let _ = read_directly(&mount.at("f"), 0, files[0].1.len());
    until(|| mount.stats().responses_refused > 0);
    assert!(mount.log().contains("not what their hash says"), "{}", mount.log());
    let requests = proxy.ranges().len();
    for offset in [0, 3 * MIB, 9 * MIB] {
        let began = Instant::now();
        assert_eq!(errno(read_directly(&mount.at("f"), offset as u64, 4096)), Some(libc::EIO));
        assert!(began.elapsed() < Duration::from_millis(500));
    }
    assert_eq!(proxy.ranges().len(), requests, "it is not asked for again so soon");
    mount.unmount();
    proxy.honest();
    let mount = mounting.mount();
    assert_right(&mount.path(), &files);
}

#[test]
fn rule_26_what_goes_around_the_cache_is_checked_too() {
    let (server, files) = database_of(&[("f", 3 * MIB + 7), ("small", 100_000)]);
    let proxy = Proxy::before(&server);
    let mount = impatient(&proxy.url()).args(&["--cache-size", "0"]).mount();
    assert_right(&mount.path(), &files);
    let stats = mount.stats();
    assert!(stats.bytes_proven >= files[0].1.len() as u64, "{stats:?}");
    for (name, at) in [("f", 2 * MIB + 70_000), ("small", 99_999)] {
        let bytes = &files.iter().find(|(other, _)| other == name).unwrap().1;
        let mut flip = flip(at);
        proxy.spoil(
            move |request, honest| {
                if request.target.contains(name) { flip(request, honest) } else { honest.into() }
            },
        );
        // Not even next to it, in the same block.
        let beside = read_directly(&mount.at(name), (at - 300) as u64, 200);
        assert_eq!(errno(beside), Some(libc::EIO), "{name}");
        proxy.honest();
        let read = read_directly(&mount.at(name), (at - 300) as u64, 200).unwrap();
        assert!(read == slice(bytes, (at - 300) as u64, 200));
    }
    assert!(mount.stats().responses_refused >= 2);
}
