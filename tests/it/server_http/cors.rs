//! CORS: browsers may read everything public, and errors too.

use crate::harness::{Server, get, head, request};

/// The seed's four headers.
const CORS: [(&str, &str); 4] = [
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS"),
    ("Access-Control-Allow-Headers", "Content-Type, Range, Authorization"),
    ("Access-Control-Expose-Headers", "Content-Range, Content-Length, ETag, Accept-Ranges"),
];

#[test]
fn cors_is_on_every_answer_just_as_the_seed_has_it() {
    let server = Server::start();
    let id = server.register("x", "public");
    server.publish(&id, &[("f", b"0123456789")]);
    let asks = [
        (get("/api/public"), 200),
        (get("/api/public?limit=x"), 400),
        (get("/api/db/alice/x"), 200),
        (head("/api/db/alice/x"), 200),
        (get("/api/db/alice/absent"), 401),
        (get("/api/db/alice/absent").bearer(&server.token), 404),
        (get("/db/alice/x/f"), 200),
        (head("/db/alice/x/f"), 200),
        (get("/db/alice/x/f").with("Range", "bytes=0-0"), 206),
        (get("/db/alice/x/f").with("Range", "bytes=10-"), 416),
        (get("/db/alice/x/f").with("If-None-Match", "*"), 304),
        (get("/db/alice/x/f").with("If-Match", "\"other\""), 412),
        (get("/db/alice/x/missing"), 404),
        (get("/db/alice/absent/f"), 401),
        (get("/no/such/route"), 404),
        (request("DELETE", "/api/public"), 405),
        (get("/me").bearer("pqt_unknown"), 401),
        (request("OPTIONS", "/api/public"), 204),
        (request("OPTIONS", "/db/alice/private-or-absent/f").with("Origin", "https://a.example"), 204),
        (request("OPTIONS", "/no/such/route"), 204),
    ];
    for (ask, status) in asks {
        let shown = format!("{} {}", ask.method, ask.target);
        let preflight = ask.method == "OPTIONS";
        let answer = ask.send(&server.address);
        assert_eq!(answer.status, status, "{shown}: {}", answer.text());
        for (name, value) in CORS {
            assert_eq!(answer.header(name), Some(value), "{shown} {name}");
        }
        let max_age = answer.header("Access-Control-Max-Age");
        assert_eq!(max_age, preflight.then_some("86400"), "{shown}");
    }
    // A browser may upload, too.
    let upload = request("OPTIONS", &format!("/api/sync/upload/{id}/f")).send(&server.address).expect(204);
    assert_eq!(upload.header("Access-Control-Allow-Methods"), Some("GET, HEAD, OPTIONS, PUT"));
    let headers = upload.header("Access-Control-Allow-Headers").unwrap();
    assert_eq!(headers, "Content-Type, Range, Authorization, X-Upload-Token");
}
