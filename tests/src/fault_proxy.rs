//! A proxy in front of an S3 server that breaks what it is told to break.
//!
//! It forwards requests byte for byte (signatures stay valid, since the client signs the proxy's own
//! address) and answers one request per connection. Faults are scripted ([`FaultProxy::fault`]) or
//! drawn from a seed ([`FaultProxy::random`]): the same requests in the same order meet the same
//! faults. Threads end when their connections do.

#![allow(clippy::unwrap_used)]

mod http;

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::s3_server::endpoint;
use http::{Request, content_length};

/// How a request goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An answer of S3's with this status and error code; the request never arrives.
    Answer(u16, &'static str),
    /// The connection ends before the request arrives.
    ResetBefore,
    /// The request takes effect, then the connection ends before the answer.
    ResetAfter,
    /// The request never arrives, and nothing is ever answered.
    Silence,
    /// The answer ends after this many bytes of its body.
    Truncate(usize),
    /// The answer stops after this many bytes of its body, and the connection stays open.
    Stall(usize),
}

/// Which requests a fault is for.
#[derive(Debug, Clone)]
pub struct Rule {
    /// HTTP method.
    pub method: &'static str,
    /// What the path with its query contains.
    pub target: &'static str,
    /// How many of them to let pass first.
    pub skip: u32,
    /// How many of them to break then.
    pub times: u32,
    /// How.
    pub fault: Fault,
}

#[derive(Debug, Default)]
struct Plan {
    rules: Vec<Rule>,
    random: Option<(StdRng, u32, Vec<Fault>)>,
    fired: u32,
}

impl Plan {
    /// Decides about one request.
    fn next(&mut self, request: &Request) -> Option<Fault> {
        let matching = |rule: &&mut Rule| {
            rule.method == request.method && request.target.contains(rule.target) && rule.times > 0
        };
        let mut fault = None;
        if let Some(rule) = self.rules.iter_mut().find(matching) {
            if rule.skip > 0 {
                rule.skip -= 1;
            } else {
                rule.times -= 1;
                fault = Some(rule.fault);
            }
        } else if let Some((random, one_in, faults)) = &mut self.random
            && random.random_ratio(1, *one_in)
        {
            fault = faults.get(random.random_range(0..faults.len())).copied();
        }
        self.fired += u32::from(fault.is_some());
        fault
    }
}

/// A running proxy; stops accepting when dropped.
pub struct FaultProxy {
    /// Base URL, `http://127.0.0.1:<port>`.
    pub endpoint: String,
    address: SocketAddr,
    plan: Arc<Mutex<Plan>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FaultProxy {
    /// Starts a proxy on a free port that breaks nothing yet.
    ///
    /// # Panics
    /// Where no port can be bound.
    #[must_use]
    pub fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let plan = Arc::new(Mutex::new(Plan::default()));
        let stopping = Arc::new(AtomicBool::new(false));
        let thread = {
            let (plan, stopping) = (Arc::clone(&plan), Arc::clone(&stopping));
            std::thread::spawn(move || {
                for socket in listener.incoming() {
                    if stopping.load(Ordering::Acquire) {
                        return;
                    }
                    let Ok(socket) = socket else { continue };
                    let plan = Arc::clone(&plan);
                    // A client that hangs up is part of the test.
                    std::thread::spawn(move || drop(serve(socket, upstream, &plan)));
                }
            })
        };
        Self { endpoint: endpoint(address), address, plan, stopping, thread: Some(thread) }
    }

    /// Breaks the next requests that the rule matches.
    pub fn fault(&self, rule: Rule) {
        self.plan(|plan| plan.rules.push(rule));
    }

    /// Breaks, from now on, one request in `one_in` (no other rule matches) with one of `faults`.
    pub fn random(&self, seed: u64, one_in: u32, faults: &[Fault]) {
        let random = (StdRng::seed_from_u64(seed), one_in, faults.to_vec());
        self.plan(|plan| plan.random = Some(random));
    }

    /// Breaks nothing from now on.
    pub fn heal(&self) {
        self.plan(|plan| {
            plan.rules.clear();
            plan.random = None;
        });
    }

    /// Requests broken so far: a test that broke none proves nothing.
    #[must_use]
    pub fn fired(&self) -> u32 {
        self.plan(|plan| plan.fired)
    }

    fn plan<T>(&self, use_it: impl FnOnce(&mut Plan) -> T) -> T {
        use_it(&mut self.plan.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Answers the one request of a connection.
fn serve(mut client: TcpStream, upstream: SocketAddr, plan: &Mutex<Plan>) -> io::Result<()> {
    let request = Request::read_head(&mut client)?;
    let fault = plan.lock().unwrap_or_else(PoisonError::into_inner).next(&request);
    match fault {
        Some(Fault::ResetBefore) => return client.shutdown(Shutdown::Both),
        Some(Fault::Silence) => return hold(&mut client),
        _ => {}
    }
    let request = request.read_body(&mut client)?;
    if let Some(Fault::Answer(status, code)) = fault {
        return client.write_all(&http::error_answer(status, code, request.method == "HEAD"));
    }
    let mut server = TcpStream::connect(upstream)?;
    server.write_all(&request.for_one_connection())?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    match fault {
        Some(Fault::ResetAfter) => client.shutdown(Shutdown::Both),
        Some(Fault::Truncate(bytes)) => client.write_all(cut(&answer, bytes)),
        Some(Fault::Stall(bytes)) => {
            client.write_all(cut(&answer, bytes))?;
            hold(&mut client)
        }
        _ => client.write_all(&answer),
    }
}

/// Keeps a connection open until the client gives up.
fn hold(client: &mut TcpStream) -> io::Result<()> {
    io::copy(client, &mut io::sink()).map(drop)
}

/// An answer's head and the first bytes of its body.
fn cut(answer: &[u8], bytes: usize) -> &[u8] {
    let body = http::head_length(answer).unwrap_or(answer.len());
    debug_assert!(content_length(answer).is_some_and(|whole| whole > bytes));
    &answer[..answer.len().min(body + bytes)]
}
