//! A relay in front of a real server that can be told to let answers trickle, and may be far away or narrow.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::Server;

pub struct Relay {
    address: String,
    slow: Arc<AtomicBool>,
    stopped: Arc<AtomicBool>,
}

/// What the way is like.
#[derive(Debug, Clone, Copy)]
struct Way {
    /// From one end to the other.
    length: Duration,
    /// What each connection's answers get, in bytes a second.
    width: Option<u32>,
}

impl Relay {
    /// Passes on what comes as it comes.
    pub fn before(server: &Server) -> Self {
        Self::over(server, Way { length: Duration::ZERO, width: None })
    }

    /// So far away, there and back.
    pub fn far(server: &Server, round_trip: Duration) -> Self {
        Self::over(server, Way { length: round_trip / 2, width: None })
    }

    /// So many bytes a second for each connection.
    pub fn narrow(server: &Server, width: u32) -> Self {
        Self::over(server, Way { length: Duration::ZERO, width: Some(width) })
    }

    fn over(server: &Server, way: Way) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (slow, stopped) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (onward, inner, ended) = (server.address.clone(), slow.clone(), stopped.clone());
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(server) = TcpStream::connect(&onward) else { continue };
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let (requests, answers) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let there = Way { width: None, ..way };
                thread::spawn(move || pass_on(requests, server, Arc::default(), there));
                let slow = inner.clone();
                thread::spawn(move || pass_on(answers, client, slow, way));
            }
        });
        Self { address, slow, stopped }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on, answers come a few thousand bytes a second, or as they come.
    pub fn trickle(&self, slow: bool) {
        self.slow.store(slow, Ordering::SeqCst);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.trickle(false);
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(&self.address);
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, slow: Arc<AtomicBool>, way: Way) {
    let (send, arrives) = mpsc::channel::<(Instant, Vec<u8>)>();
    // What is on its way does not keep what follows from setting out.
    let far_end = thread::spawn(move || {
        for (at, bytes) in arrives {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let mut buffer = vec![0; 64 << 10];
    loop {
        let at_most = if slow.load(Ordering::SeqCst) { 1000 } else { buffer.len() };
        let Ok(count @ 1..) = from.read(&mut buffer[..at_most]) else { break };
        if send.send((Instant::now() + way.length, buffer[..count].to_vec())).is_err() {
            break;
        }
        if at_most < buffer.len() {
            thread::sleep(Duration::from_millis(200));
        } else if let Some(width) = way.width {
            thread::sleep(Duration::from_secs_f64(count as f64 / f64::from(width)));
        }
    }
    drop(send);
    let _ = far_end.join();
    let _ = from.shutdown(std::net::Shutdown::Read);
}
