//! Names to addresses, as the system does it (`getaddrinfo`), on threads of their own.
//!
//! *Invariant*: a name is asked for once at a time, however many connections want it, and none of them waits for longer
//! than [`LIMIT`]: a name server that does not answer costs one thread a name, and nobody else anything.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};
use futures_util::future::{BoxFuture, FutureExt, Shared};

use crate::threads::{Limits, Threads};

/// How long an answer is waited for.
const LIMIT: Duration = Duration::from_secs(10);

static THREADS: LazyLock<Threads> =
    LazyLock::new(|| Threads::new(Limits { at_once: 2, hung: 14, slow: Duration::from_secs(1) }));

/// What was found, or why not.
type Found = Result<Vec<IpAddr>, String>;
type Lookup = Shared<BoxFuture<'static, Found>>;

/// Asks the system.
#[derive(Debug, Clone)]
pub(super) struct Resolver {
    ask: fn(&str) -> io::Result<Vec<IpAddr>>,
    under_way: Arc<Mutex<HashMap<String, Lookup>>>,
}

impl Default for Resolver {
    fn default() -> Self {
        Self { ask: system, under_way: Arc::default() }
    }
}

impl ResolveDns for Resolver {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        let lookup = self.lookup(name);
        DnsFuture::new(async move {
            match tokio::time::timeout(LIMIT, lookup).await {
                Ok(found) => found.map_err(ResolveDnsError::new),
                Err(_) => Err(ResolveDnsError::new("the name server has not answered")),
            }
        })
    }
}

impl Resolver {
    /// The lookup of `name` that is under way, or a new one.
    fn lookup(&self, name: &str) -> Lookup {
        let mut under_way = lock(&self.under_way);
        if let Some(lookup) = under_way.get(name) {
            return lookup.clone();
        }
        let (ask, others, asked) = (self.ask, self.under_way.clone(), name.to_owned());
        let work = move || {
            let found = ask(&asked).map_err(|error| error.to_string());
            // Also where nobody waits any more: the next one asks again.
            lock(&others).remove(&asked);
            found
        };
        let lookup = async { THREADS.run(work).await.map_err(|panic| panic.to_string()).flatten() };
        let lookup = lookup.boxed().shared();
        under_way.insert(name.to_owned(), lookup.clone());
        lookup
    }
}

fn system(name: &str) -> io::Result<Vec<IpAddr>> {
    Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    static ASKED: AtomicUsize = AtomicUsize::new(0);
    static ANSWER: Mutex<Option<mpsc::Receiver<()>>> = Mutex::new(None);

    /// A name server that answers "silent.example" once, when it is told to, and others at once.
    fn server(name: &str) -> io::Result<Vec<IpAddr>> {
        match name {
            "silent.example" => {
                ASKED.fetch_add(1, Ordering::SeqCst);
                // Only its end is waited for.
                let _ = lock(&ANSWER).take().map(|answer| answer.recv());
                Ok(vec![IpAddr::from([127, 0, 0, 7])])
            }
            "none.example" => Err(io::Error::other("no such name")),
            _ => Ok(vec![IpAddr::from([127, 0, 0, 1])]),
        }
    }

    #[tokio::test]
    async fn a_silent_name_server_is_asked_once_a_name_and_keeps_nobody_else_waiting() {
        let (answer, answered) = mpsc::channel();
        *lock(&ANSWER) = Some(answered);
        let resolver = Resolver { ask: server, under_way: Arc::default() };
        let asked = resolver.clone();
        let first = tokio::spawn(async move { asked.resolve_dns("silent.example").await });
        while ASKED.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        // Each of them gives up, as a connection does.
        for _ in 0..100 {
            let again = resolver.resolve_dns("silent.example");
            assert!(tokio::time::timeout(Duration::from_millis(1), again).await.is_err());
        }
        assert_eq!(ASKED.load(Ordering::SeqCst), 1);
        let other = resolver.resolve_dns("other.example").await.unwrap();
        assert_eq!(other, [IpAddr::from([127, 0, 0, 1])]);
        drop(answer);
        assert_eq!(first.await.unwrap().unwrap(), [IpAddr::from([127, 0, 0, 7])]);
        assert!(lock(&resolver.under_way).is_empty());
        resolver.resolve_dns("silent.example").await.unwrap();
        assert_eq!(ASKED.load(Ordering::SeqCst), 2, "asked anew");
        assert!(resolver.resolve_dns("none.example").await.is_err());
    }
}
