//! The sync routes as a client with the owner's token uses them, for tests that need a database of a certain
//! state.

use serde_json::{Value, json};

use super::{Response, Server, get, request, sha256};

/// A manifest entry for `content` at `path`.
pub fn put_entry(path: &str, content: &[u8]) -> Value {
    describe_entry(path, content.len() as u64, &sha256(content))
}

/// A manifest entry for a content known by its size and hash only.
pub fn describe_entry(path: &str, size: u64, hash: &str) -> Value {
    json!({
        "path": path, "size": size, "hash": hash, "hashAlgorithm": "sha256",
        "modifiedAt": "2024-05-06T07:08:09.123Z",
    })
}

impl Server {
    /// Registers alice's database `slug`, and gives its id.
    pub fn register(&self, slug: &str, visibility: &str) -> String {
        let body = json!({"name": slug, "slug": slug, "visibility": visibility, "owner": "alice"});
        let response =
            request("POST", "/api/sync/register").bearer(&self.token).json(&body).send(&self.address);
        response.expect(201).json()["id"].as_str().unwrap().to_owned()
    }

    /// Asks for permission to upload `file`: what the server says of it.
    pub fn announce(&self, id: &str, file: &Value) -> Value {
        let body = json!({"databaseId": id, "files": [file]});
        let ask = request("POST", "/api/sync/upload-urls").bearer(&self.token).json(&body);
        ask.send(&self.address).expect(200).json()["urls"][0].clone()
    }

    /// Whether the server has a content of this database stored.
    pub fn has(&self, id: &str, content: &[u8]) -> bool {
        let file = json!({"path": "x", "size": content.len(), "hash": sha256(content)});
        self.announce(id, &file)["exists"] == true
    }

    /// Uploads a content that is not there yet.
    pub fn upload(&self, id: &str, path: &str, content: &[u8]) {
        let file = json!({"path": path, "size": content.len(), "hash": sha256(content)});
        let target = self.announce(id, &file);
        if target["exists"] != true {
            self.put_upload(&target, content).expect(200);
        }
    }

    /// Sends `content` to where `target` says.
    pub fn put_upload(&self, target: &Value, content: &[u8]) -> Response {
        let url = target["url"].as_str().unwrap();
        let route =
            url.strip_prefix(&self.url()).unwrap_or_else(|| panic!("{url} is not below {}", self.url()));
        let token = target["headers"]["x-upload-token"].as_str().unwrap();
        request("PUT", route).with("X-Upload-Token", token).body(content).send(&self.address)
    }

    /// Sends a commit.
    pub fn commit(&self, id: &str, commit_id: &str, base: u64, put: &[Value], delete: &[&str]) -> Response {
        let body = json!({"commitId": commit_id, "base": base, "put": put, "delete": delete});
        let target = format!("/api/sync/commit/{id}");
        request("POST", &target).bearer(&self.token).json(&body).send(&self.address)
    }

    /// Uploads and publishes files on top of the current revision, and gives the new one.
    pub fn publish(&self, id: &str, files: &[(&str, &[u8])]) -> u64 {
        let mut put = Vec::new();
        for (path, content) in files {
            self.upload(id, path, content);
            put.push(put_entry(path, content));
        }
        let base = self.revision(id);
        let commit_id = format!("publish-{base}-{}", sha256(files[0].1));
        self.commit(id, &commit_id, base, &put, &[]).expect(200).json()["revision"].as_u64().unwrap()
    }

    /// The current manifest's answer, asked for by id with the owner's token.
    pub fn manifest(&self, id: &str) -> Response {
        get(&format!("/api/sync/manifest/{id}")).bearer(&self.token).send(&self.address)
    }

    /// The current revision; 0 while nothing is published.
    pub fn revision(&self, id: &str) -> u64 {
        let manifest = self.manifest(id);
        manifest.header("x-parquedb-revision").map_or(0, |revision| revision.parse().unwrap())
    }

    /// The paths of alice's database `slug`.
    pub fn paths(&self, slug: &str) -> Vec<String> {
        let target = format!("/db/alice/{slug}/_meta/manifest.json");
        let manifest = get(&target).bearer(&self.token).send(&self.address).expect(200).json();
        manifest["files"].as_object().unwrap().keys().cloned().collect()
    }
}
