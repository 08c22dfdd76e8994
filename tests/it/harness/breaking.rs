//! A link that breaks: every connection ends after so many bytes have gone up it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// The link; it goes on until the test ends.
pub struct Breaking {
    address: String,
    sent: Arc<AtomicU64>,
    breaks: Arc<AtomicU64>,
}

impl Breaking {
    /// Leads to `server`; connections end after `piece` bytes.
    pub fn start(server: &str, piece: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sent, breaks) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (server, counted) = (server.to_owned(), (sent.clone(), breaks.clone()));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(upstream) = TcpStream::connect(&server) else { continue };
                let (sent, breaks) = counted.clone();
                let (mut down, mut answers) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
                thread::spawn(move || {
                    let _ = std::io::copy(&mut answers, &mut down);
                    let _ = down.shutdown(Shutdown::Both);
                });
                thread::spawn(move || carry(client, upstream, piece, &sent, &breaks));
            }
        });
        Self { address, sent, breaks }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Bytes that went up it.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    /// Connections that it ended.
    pub fn breaks(&self) -> u64 {
        self.breaks.load(Ordering::SeqCst)
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, piece: u64, sent: &AtomicU64, breaks: &AtomicU64) {
    let (mut left, mut buffer) = (piece, vec![0; 64 << 10]);
    while left > 0 {
        let Ok(read @ 1..) = from.read(&mut buffer) else { break };
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
        sent.fetch_add(read as u64, Ordering::SeqCst);
        left = left.saturating_sub(read as u64);
    }
    if left == 0 {
        breaks.fetch_add(1, Ordering::SeqCst);
    }
    let _ = to.shutdown(Shutdown::Write);
    if left == 0 {
        let _ = from.shutdown(Shutdown::Both);
    }
}
