//! The way from a mount to the server, which fails as a seed says, and where requests wait while somebody works.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot};

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It never arrives.
    Lost,
    /// It is carried out, and nobody hears of it.
    Unheard,
    /// It is carried out twice.
    Twice,
    /// It is carried out, and no answer comes for as long as anybody waits: the daemon is killed then.
    Killed,
    /// It waits for ever before it arrives.
    KilledBefore,
}

/// When somebody works at a mount that waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meanwhile {
    /// Before the request has arrived.
    Before,
    /// When it has been carried out.
    After,
}

/// Where it is told that a request waits: until that which is sent is dropped.
type Waiting = mpsc::UnboundedSender<oneshot::Sender<()>>;

/// What happens to the requests of a round.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// What goes wrong with them, counted from 1. Reads of contents are not counted: how often they are made anew depends on time.
    pub(super) faults: BTreeMap<u32, Fault>,
    /// Which of them wait while somebody works.
    pub(super) work: BTreeMap<u32, Meanwhile>,
    /// No content can be read.
    pub(super) no_reads: bool,
    /// The daemon is being killed: nothing arrives any more.
    pub(super) is_over: bool,
}

/// The way from one mount to the server.
#[derive(Default)]
pub(super) struct Network {
    /// What happens to the requests that come next.
    plan: Mutex<Plan>,
    asked: Mutex<u32>,
    waiting: Mutex<Option<Waiting>>,
    /// Nothing gets through.
    parted: Mutex<bool>,
    /// A request waits for ever.
    pub(super) hangs: Notify,
    /// How often each fault was met.
    pub(super) fired: Mutex<BTreeMap<String, u32>>,
    /// How many requests are neither answered nor waiting for ever.
    under_way: Mutex<u32>,
    /// One request is carried after the other, so that all meet their faults in the same order.
    turn: tokio::sync::Mutex<()>,
}

impl Network {
    /// From now on, this happens. Gives those requests that wait.
    pub(super) fn plan(&self, plan: Plan) -> mpsc::UnboundedReceiver<oneshot::Sender<()>> {
        let (waiting, waits) = mpsc::unbounded_channel();
        // Several may have been left to wait by the last one.
        let _ = self.hangs.notified().now_or_never();
        *self.plan.lock().unwrap() = plan;
        *self.waiting.lock().unwrap() = Some(waiting);
        *self.asked.lock().unwrap() = 0;
        waits
    }

    /// Nothing happens any more.
    pub(super) fn calm(&self) {
        drop(self.plan(Plan::default()));
    }

    pub(super) fn part(&self, parted: bool) {
        *self.parted.lock().unwrap() = parted;
    }

    fn next(&self, request: &str) -> (Option<Fault>, Option<Meanwhile>) {
        let reads = request.to_ascii_lowercase().contains("\r\nrange:");
        let mut asked = self.asked.lock().unwrap();
        let mut plan = self.plan.lock().unwrap();
        if plan.is_over {
            return (Some(Fault::KilledBefore), None);
        }
        let (mut fault, mut work) = (None, None);
        if !reads {
            *asked += 1;
            (fault, work) = (plan.faults.remove(&asked), plan.work.remove(&asked));
        }
        let parted = *self.parted.lock().unwrap();
        let mut name = fault.map(|fault| format!("{fault:?}"));
        if parted || reads && plan.no_reads {
            fault = Some(Fault::Lost);
            name = Some(if parted { "Parted" } else { "NoReads" }.to_owned());
        }
        plan.is_over = matches!(fault, Some(Fault::Killed | Fault::KilledBefore));
        let line = request.lines().next().unwrap_or_default();
        tracing::debug!(line, number = *asked, ?fault, ?work, parted, "asked");
        if let Some(name) = name {
            self.has_fired(name);
        }
        (fault, work)
    }

    fn has_fired(&self, name: String) {
        *self.fired.lock().unwrap().entry(name).or_default() += 1;
    }

    /// Waits until somebody has worked.
    async fn wait(&self, when: Meanwhile) {
        let (waits, over) = oneshot::channel();
        let told = self.waiting.lock().unwrap().as_ref().is_some_and(|waiting| waiting.send(waits).is_ok());
        if told {
            self.has_fired(format!("{when:?}"));
            // It is dropped, and says nothing.
            let _ = over.await;
        }
    }

    /// A port that leads to the server at `address`, over this network. One request a connection.
    pub(super) async fn lead_to(self: &Arc<Self>, address: String) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let network = self.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (network, address) = (network.clone(), address.clone());
                tokio::spawn(async move {
                    // Connections are made before they are needed.
                    if !client.peek(&mut [0]).await.is_ok_and(|begun| begun > 0) {
                        return;
                    }
                    *network.under_way.lock().unwrap() += 1;
                    let waits = network.carry(client, &address).await;
                    *network.under_way.lock().unwrap() -= 1;
                    if let Ok(Some(client)) = waits {
                        network.hangs.notify_one();
                        std::future::pending::<()>().await;
                        drop(client);
                    }
                });
            }
        });
        url
    }

    /// All that was sent has arrived, or never will, and what somebody is about to send, too.
    pub(super) async fn calms_down(&self) {
        // From a wish to its arrival here it takes fewer turns than that, unless the machine is very busy.
        let mut calm = 0;
        while calm < 8 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            calm = if *self.under_way.lock().unwrap() == 0 { calm + 1 } else { 0 };
        }
    }

    /// Carries one request there, and its answer back. Gives a connection back that is to wait for ever.
    async fn carry(&self, mut client: TcpStream, address: &str) -> std::io::Result<Option<TcpStream>> {
        let request = read_request(&mut client).await?;
        if request.is_empty() {
            return Ok(None);
        }
        let _ours = self.turn.lock().await;
        let (fault, work) = self.next(&String::from_utf8_lossy(&request));
        if work == Some(Meanwhile::Before) {
            self.wait(Meanwhile::Before).await;
        }
        match fault {
            Some(Fault::Lost) => return Ok(None),
            Some(Fault::KilledBefore) => return Ok(Some(client)),
            _ => {}
        }
        let answer = send(&request, address).await?;
        let answer = if fault == Some(Fault::Twice) { send(&request, address).await? } else { answer };
        if work == Some(Meanwhile::After) {
            self.wait(Meanwhile::After).await;
        }
        match fault {
            Some(Fault::Unheard) => Ok(None),
            Some(Fault::Killed) => Ok(Some(client)),
            _ => client.write_all(&answer).await.map(|()| None),
        }
    }
}

async fn read_request(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = client.read(&mut buffer).await?;
        request.extend_from_slice(&buffer[..read]);
        let head = request.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(head) = head {
            let text = String::from_utf8_lossy(&request[..head]).to_ascii_lowercase();
            let length =
                text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            if request.len() >= head + 4 + length.unwrap_or(0) {
                // It closes the connection when it has answered.
                let mut closing = request[..head].to_vec();
                closing.extend_from_slice(b"\r\nConnection: close");
                closing.extend_from_slice(&request[head..]);
                return Ok(closing);
            }
        }
        if read == 0 {
            return Ok(Vec::new());
        }
    }
}

async fn send(request: &[u8], address: &str) -> std::io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(address).await?;
    server.write_all(request).await?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await?;
    Ok(answer)
}
