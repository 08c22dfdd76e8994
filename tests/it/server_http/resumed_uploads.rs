//! An upload that breaks off goes on where it did: by hand over sockets, and by a push over a link that breaks.

use std::io::Write;
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::harness::{Cli, Server, TempTree, get, head, noise, put_entry, request, sha256, until};

fn announce(server: &Server, id: &str, content: &[u8]) -> (Value, String, String) {
    let file = json!({"path": "f", "size": content.len(), "hash": sha256(content)});
    let target = server.announce(id, &file);
    let route = target["url"].as_str().unwrap().strip_prefix(&server.url()).unwrap().to_owned();
    let token = target["headers"]["x-upload-token"].as_str().unwrap().to_owned();
    (target, route, token)
}

/// Sends the beginning of an upload, and hangs up.
fn break_off(server: &Server, route: &str, token: &str, content: &[u8], sent: usize) {
    let mut stream = TcpStream::connect(&server.address).unwrap();
    let length = content.len();
    write!(
        stream,
        "PUT {route} HTTP/1.1\r\nHost: x\r\nX-Upload-Token: {token}\r\nContent-Length: {length}\r\n\r\n"
    )
    .unwrap();
    stream.write_all(&content[..sent]).unwrap();
}

fn offset(server: &Server, route: &str, token: &str) -> u64 {
    let answer = head(route).with("X-Upload-Token", token).send(&server.address).expect(204);
    answer.header("upload-offset").unwrap().parse().unwrap()
}

#[test]
fn what_has_come_stays_and_the_rest_is_enough() {
    let server = Server::start();
    let id = server.register("x", "public");
    let content = noise(1, 20 << 20);
    let (_, route, token) = announce(&server, &id, &content);
    assert_eq!(offset(&server, &route, &token), 0);
    break_off(&server, &route, &token, &content, 9_000_000);
    until(|| offset(&server, &route, &token) == 9_000_000);
    assert!(!server.has(&id, &content), "nothing can be had of it yet");
    let resume = |from: usize| {
        let ask = request("PUT", &route).with("X-Upload-Token", &token);
        ask.with("Upload-Offset", &from.to_string()).body(&content[from..]).send(&server.address)
    };
    let elsewhere = resume(8_000_000).expect(409);
    assert_eq!(elsewhere.header("upload-offset"), Some("9000000"), "it says where to go on");
    resume(9_000_000).expect(200);
    head(&route).with("X-Upload-Token", &token).send(&server.address).expect(401);
    server.commit(&id, "commit-1", 0, &[put_entry("f", &content)], &[]).expect(200);
    assert_eq!(get("/db/alice/x/f").send(&server.address).expect(200).body, content);
}

#[test]
fn a_rest_of_another_content_is_refused_and_a_new_beginning_is_taken() {
    let server = Server::start();
    let id = server.register("x", "private");
    let content = noise(2, 3 << 20);
    let (_, route, token) = announce(&server, &id, &content);
    break_off(&server, &route, &token, &content, 2_000_000);
    until(|| offset(&server, &route, &token) == 2_000_000);
    let ask = request("PUT", &route).with("X-Upload-Token", &token);
    let wrong = noise(3, content.len() - 2_000_000);
    ask.clone().with("Upload-Offset", "2000000").body(&wrong).send(&server.address).expect(422);
    assert_eq!(offset(&server, &route, &token), 0, "nothing of it is kept");
    ask.clone().with("Upload-Offset", "many").body(&content).send(&server.address).expect(400);
    ask.body(&content).send(&server.address).expect(200);
    assert!(server.has(&id, &content));
}

#[test]
fn another_server_of_the_store_honours_the_permission_from_the_start() {
    let one = Server::start();
    let two = one.beside();
    let id = one.register("x", "private");
    let content = noise(4, 2 << 20);
    let (_, route, token) = announce(&one, &id, &content);
    break_off(&one, &route, &token, &content, 1_500_000);
    until(|| offset(&one, &route, &token) == 1_500_000);
    assert_eq!(offset(&two, &route, &token), 0, "what has come is with the other one");
    let ask = request("PUT", &route).with("X-Upload-Token", &token);
    ask.clone().with("Upload-Offset", "1500000").body(&content[1_500_000..]).send(&two.address).expect(409);
    ask.body(&content).send(&two.address).expect(200);
    assert!(one.has(&id, &content) && two.has(&id, &content));
}

#[test]
fn a_push_over_a_link_that_breaks_sends_each_byte_about_once() {
    use crate::harness::Breaking;
    const PIECE: u64 = 6 << 20;
    let server = Server::start();
    let content = noise(5, 40 << 20);
    let tree = TempTree::new();
    std::fs::write(tree.at("large"), &content).unwrap();
    // Every connection ends after some megabytes: without going on, the file would never arrive.
    let link = Breaking::start(&server.address, PIECE);
    let cli = Cli::at(&link.url()).token(&server.token);
    cli.push(tree.path(), &["--slug", "x", "--visibility", "public"]).expect(0);
    assert_eq!(get("/db/alice/x/large").send(&server.address).expect(200).body, content);
    let sent = link.sent();
    assert!(link.breaks() >= 6, "{} breaks", link.breaks());
    assert!(sent < content.len() as u64 * 5 / 4, "{sent} bytes for {}", content.len());
}
