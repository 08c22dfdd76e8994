//! A relay in front of a real server that can be told to let answers trickle.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::Server;

pub struct Relay {
    address: String,
    slow: Arc<AtomicBool>,
    stopped: Arc<AtomicBool>,
}

impl Relay {
    pub fn before(server: &Server) -> Self {
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
                let (requests, answers) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(|| pass_on(requests, server, Arc::default()));
                let slow = inner.clone();
                thread::spawn(|| pass_on(answers, client, slow));
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

fn pass_on(mut from: TcpStream, mut to: TcpStream, slow: Arc<AtomicBool>) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let at_most = if slow.load(Ordering::SeqCst) { 1000 } else { buffer.len() };
        let Ok(count @ 1..) = from.read(&mut buffer[..at_most]) else { break };
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
        if at_most < buffer.len() {
            thread::sleep(Duration::from_millis(200));
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
    let _ = from.shutdown(std::net::Shutdown::Read);
}
