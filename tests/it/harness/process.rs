//! Running a program to its end, within the deadline.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::DEADLINE;

/// What a program left behind. A program ended by a signal has the signal's number, negative.
#[derive(Debug)]
pub struct Finished {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Starts `command` with `input` on its standard input and waits for its end.
pub fn run_to_end(command: &mut Command, input: &[u8]) -> Finished {
    run_within(command, input, DEADLINE)
}

/// The same for a program that may take longer than others.
pub fn run_within(command: &mut Command, input: &[u8], patience: Duration) -> Finished {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?} did not start: {error}"));
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input may have closed it.
        let _ = stdin.write_all(input);
    }
    let code = finish_within(&mut child, patience);
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    let Some(code) = code else { panic!("{command:?} hangs:\n{stdout}\n{stderr}") };
    Finished { code, stdout, stderr }
}

/// Waits for a process to end; one that does not is killed, and there is no code.
pub fn finish(child: &mut Child) -> Option<i32> {
    finish_within(child, DEADLINE)
}

fn finish_within(child: &mut Child, patience: Duration) -> Option<i32> {
    use std::os::unix::process::ExitStatusExt;
    let until = Instant::now() + patience;
    while Instant::now() < until {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status.code().unwrap_or_else(|| -status.signal().unwrap_or(0)));
        }
        thread::sleep(Duration::from_millis(3));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

/// Reads a pipe beside the program, so that a full pipe never stops it.
fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Runs a program that may take longer than others and must succeed, and gives what it printed.
#[track_caller]
pub fn succeeds(command: &mut Command, patience: Duration) -> String {
    let ended = run_within(command, b"", patience);
    assert_eq!(ended.code, 0, "{}\n{}", ended.stdout, ended.stderr);
    ended.stdout
}

/// The error's number, where there is one.
pub fn errno<T>(result: std::io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}
