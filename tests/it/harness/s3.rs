//! A real S3 server as a process, with one bucket: `s3s-fs`, which checks signatures and keeps files, and `moto`,
//! which speaks S3's errors and forgets everything when it ends. An [`S3Proxy`] stands before it; what the tests
//! start talks to that one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{DEADLINE, S3Proxy, request};

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    S3sFs,
    Moto,
}

/// A running server. Dropped, it is killed; its files stay in the directory it was given.
pub struct S3Server {
    kind: Kind,
    dir: PathBuf,
    child: Child,
    direct: String,
    front: S3Proxy,
}

pub const ACCESS_KEY: &str = "parquedb-tests";
pub const SECRET_KEY: &str = "no secret at all";
const REGION: &str = "us-east-1";
/// s3s-fs makes names of files from the bucket's and the key's, four bytes for three: both must be short.
const BUCKET: &str = "test";

impl S3Server {
    /// Starts a server with an empty bucket, or with what `dir` holds of an earlier one of s3s-fs.
    pub fn start(kind: Kind, dir: &Path) -> Self {
        let (child, direct) = spawn(kind, dir);
        let front = S3Proxy::start(&direct);
        Self { kind, dir: dir.to_owned(), child, direct, front }
    }

    /// What a client is told to talk to.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.front.address)
    }

    pub fn bucket(&self) -> &'static str {
        BUCKET
    }

    /// The proxy before it, to lie, to fail, and to count.
    pub fn front(&self) -> &S3Proxy {
        &self.front
    }

    /// What `AmazonS3Builder::from_env` wants to know.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.into()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.into()),
            ("AWS_REGION", REGION.into()),
            ("AWS_ENDPOINT", self.endpoint()),
            ("AWS_ALLOW_HTTP", "true".into()),
            ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "false".into()),
        ]
    }

    /// Kills it without warning. The endpoint stays, and hangs up on everyone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again behind the same endpoint.
    pub fn start_again(&mut self) {
        self.kill();
        (self.child, self.direct) = spawn(self.kind, &self.dir);
        self.front.point_at(&self.direct);
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts the program, and gives it and its `host:port` once it answers and has the bucket.
fn spawn(kind: Kind, dir: &Path) -> (Child, String) {
    fs::create_dir_all(files_of(dir).join(BUCKET)).unwrap();
    let log = File::create(log_of(dir)).unwrap();
    let mut command = match kind {
        Kind::S3sFs => s3s_fs(dir),
        Kind::Moto => moto(),
    };
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?} did not start: {error}"));
    let address = wait_for_address(&mut child, &log_of(dir));
    if kind == Kind::Moto {
        request("PUT", &format!("/{BUCKET}")).body(b"").send(&address).expect(200);
    }
    (child, address)
}

fn files_of(dir: &Path) -> PathBuf {
    dir.join("s3")
}

fn log_of(dir: &Path) -> PathBuf {
    dir.join("s3.log")
}

fn s3s_fs(dir: &Path) -> Command {
    let mut command = Command::new(tool("s3s-fs/bin/s3s-fs"));
    command.args([
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--access-key",
        ACCESS_KEY,
        "--secret-key",
        SECRET_KEY,
    ]);
    // Its port is said in its log, and only at this level.
    command.arg(files_of(dir)).env_clear().env("RUST_LOG", "s3s_fs=info");
    command
}

fn moto() -> Command {
    let mut command = Command::new(tool("moto/bin/python"));
    command.args(["-I", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]).env_clear();
    command
}

fn tool(name: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools").join(name);
    assert!(program.is_file(), "there is no {}: run scripts/setup", program.display());
    program
}

/// Both programs are told to take any free port, and print which one it was.
fn wait_for_address(child: &mut Child, log: &Path) -> String {
    let until = Instant::now() + DEADLINE;
    loop {
        let said = fs::read_to_string(log).unwrap();
        if let Some(address) = address_in(&said) {
            return address;
        }
        let ended = child.try_wait().unwrap();
        if ended.is_some() || Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the S3 server does not start (does scripts/setup still pass?): {ended:?}\n{said}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn address_in(said: &str) -> Option<String> {
    let (_, rest) = said.split_once("http://127.0.0.1:")?;
    // A digit may still be on its way.
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    Some(format!("127.0.0.1:{}", &rest[..end]))
}
