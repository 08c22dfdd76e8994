//! Debian's nginx, serving a directory from a socket of its own, and where it is wanted from a port.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{DEADLINE, Request, Response, exchange, text};

/// A running nginx. Dropped, it is killed.
pub struct Nginx {
    child: Child,
    place: TempDir,
    port: Option<u16>,
}

const PROGRAM: &str = "/usr/sbin/nginx";

impl Nginx {
    /// Serves the files below `root`.
    pub fn start(root: &Path) -> Self {
        Self::listen(root, None).unwrap_or_else(|log| panic!("nginx does not start: {log}"))
    }

    /// The same, from a port of this machine as well.
    pub fn on_a_port(root: &Path) -> Self {
        // nginx cannot be asked for a free one, and what is free may be taken in the next moment.
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut attempts = (0..5).map(|_| Self::listen(root, Some(free())));
        attempts.find_map(Result::ok).expect("nginx starts on a free port")
    }

    /// Where it is, if it has a port.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.expect("it was started on a port"))
    }

    fn listen(root: &Path, port: Option<u16>) -> Result<Self, String> {
        assert!(Path::new(PROGRAM).exists(), "this test needs nginx: apt-get install nginx-light");
        let place = tempfile::tempdir().unwrap();
        let dir = text(place.path());
        // A Unix socket needs no free port. One process, so that killing it leaves none behind.
        let user = if rustix::process::getuid().is_root() { "user root;" } else { "" };
        let listen = port.map_or(String::new(), |port| format!("listen 127.0.0.1:{port};"));
        let conf = format!(
            "{user} daemon off; master_process off; pid {dir}/pid; error_log {dir}/error.log;
             events {{ worker_connections 64; }}
             http {{
                 access_log off; default_type application/octet-stream; if_modified_since before;
                 client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
                 uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
                 server {{ listen unix:{dir}/socket; {listen} root {}; }}
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
        let mut nginx = Self { child, place, port };
        let until = Instant::now() + DEADLINE;
        while UnixStream::connect(nginx.socket()).is_err() {
            let ended = nginx.child.try_wait().is_ok_and(|ended| ended.is_some());
            if ended || Instant::now() > until {
                return Err(fs::read_to_string(nginx.place.path().join("error.log")).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(nginx)
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
