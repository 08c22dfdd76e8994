//! Debian's nginx, serving a directory from a socket of its own.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::harness::{DEADLINE, Request, Response, exchange, text};

/// A running nginx. Dropped, it is killed.
pub struct Nginx {
    child: Child,
    place: TempDir,
}

const PROGRAM: &str = "/usr/sbin/nginx";

impl Nginx {
    /// Serves the files below `root`.
    pub fn start(root: &Path) -> Self {
        assert!(Path::new(PROGRAM).exists(), "this test needs nginx: apt-get install nginx-light");
        let place = tempfile::tempdir().unwrap();
        let dir = text(place.path());
        // A Unix socket needs no free port. One process, so that killing it leaves none behind.
        let user = if rustix::process::getuid().is_root() { "user root;" } else { "" };
        let conf = format!(
            "{user} daemon off; master_process off; pid {dir}/pid; error_log {dir}/error.log;
             events {{ worker_connections 64; }}
             http {{
                 access_log off; default_type application/octet-stream; if_modified_since before;
                 client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
                 uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
                 server {{ listen unix:{dir}/socket; root {}; }}
             }}",
            text(root)
        );
        fs::write(place.path().join("conf"), conf).unwrap();
        let child = Command::new(PROGRAM)
            .args(["-p", dir, "-e", &format!("{dir}/error.log"), "-c", &format!("{dir}/conf")])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let nginx = Self { child, place };
        let until = Instant::now() + DEADLINE;
        while UnixStream::connect(nginx.socket()).is_err() {
            let log = || fs::read_to_string(nginx.place.path().join("error.log"));
            assert!(Instant::now() < until, "nginx does not start: {:?}", log());
            std::thread::sleep(Duration::from_millis(5));
        }
        nginx
    }

    fn socket(&self) -> PathBuf {
        self.place.path().join("socket")
    }

    pub fn send(&self, request: &Request) -> Response {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        exchange(stream, "localhost", request)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
